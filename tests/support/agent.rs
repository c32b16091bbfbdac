//! The real binary as a process of its own, on ephemeral ports and in a directory of its own.
//!
//! A configuration is the YAML a user would write, with marks for what differs from run to run: `@GRPC@`, `@HTTP@`,
//! `@HEALTH@`, `@METRICS@` (ports of the agent) and `@DIR@` (its directory). Tests add marks of their own.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{free_port, loopback, process};

/// The extension and telemetry blocks that every configuration under test shares.
pub const COMMON: &str = "
extensions:
  health_check: {endpoint: '127.0.0.1:@HEALTH@'}
service:
  extensions: [health_check]
  telemetry:
    metrics:
      readers:
        - pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}
";

/// How to start an agent.
pub struct Builder {
    yaml: String,
    marks: Vec<(String, String)>,
    program: PathBuf,
    wrapper: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<tempfile::TempDir>,
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    /// Ports as in the marks.
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub health: SocketAddr,
    pub metrics: SocketAddr,
    /// From the start of the process to its first answer on the OTLP port.
    pub start_to_open: Duration,
    log: Arc<Mutex<String>>,
    dir: Option<tempfile::TempDir>,
}

impl Agent {
    /// An agent that runs `yaml` together with [`COMMON`]: `program`, or what `TIDEGATE_BIN` names, such as a
    /// release build.
    pub fn builder(program: impl Into<PathBuf>, yaml: &str) -> Builder {
        let program = std::env::var_os("TIDEGATE_BIN").map_or_else(|| program.into(), PathBuf::from);
        Builder {
            yaml: yaml.to_owned(),
            marks: Vec::new(),
            program,
            wrapper: Vec::new(),
            env: Vec::new(),
            dir: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn rss(&self) -> u64 {
        process::rss(self.pid())
    }

    pub fn peak_rss(&self) -> u64 {
        process::peak_rss(self.pid())
    }

    pub fn cpu_seconds(&self) -> f64 {
        process::cpu_seconds(self.pid())
    }

    /// Everything it has written to stderr and stdout so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The directory behind `@DIR@`.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("not taken").path()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its own metrics, as the text a scraper gets.
    pub fn scrape(&self) -> Result<String, String> {
        http_get(self.metrics, "/metrics")
    }

    /// The sum of all series of one metric whose line contains `labels`; 0 when there is none.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.scrape().unwrap_or_default();
        text.lines()
            .filter(|l| {
                l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && l.contains(labels)
            })
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Sends a signal by name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }

    /// Asks it to stop and waits until it has; fails after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait(limit)
    }

    /// Waits for its end; fails after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < limit, "still running after {limit:?}; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its directory, to start the next agent where this one ended. Call after its end.
    pub fn take_dir(&mut self) -> tempfile::TempDir {
        self.dir.take().expect("taken once")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", self.log());
        }
    }
}

impl Builder {
    /// Replaces `@name@` in the YAML.
    pub fn mark(mut self, name: &str, value: impl ToString) -> Self {
        self.marks.push((format!("@{name}@"), value.to_string()));
        self
    }

    /// Runs the program through another, such as `taskset -c 0`.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// Sets an environment variable for it.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Uses a directory an earlier agent left behind.
    pub fn in_dir(mut self, dir: tempfile::TempDir) -> Self {
        self.dir = Some(dir);
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or is not ready within ten seconds; the message holds its log.
    pub fn start(self) -> Agent {
        let dir = self.dir.unwrap_or_else(|| tempfile::tempdir().unwrap());
        let [grpc, http, health, metrics] = [(); 4].map(|()| free_port());
        let mut marks = self.marks;
        for (name, port) in [("@GRPC@", grpc), ("@HTTP@", http), ("@HEALTH@", health), ("@METRICS@", metrics)]
        {
            marks.push((name.into(), port.to_string()));
        }
        marks.push(("@DIR@".into(), dir.path().display().to_string()));
        let fill = |text: &str| marks.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let (config, common) = (dir.path().join("config.yaml"), dir.path().join("common.yaml"));
        std::fs::write(&config, fill(&self.yaml)).unwrap();
        std::fs::write(&common, fill(COMMON)).unwrap();

        let mut words = self.wrapper;
        words.push(self.program.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--config").arg(&common).arg("--config").arg(&config);
        command.envs(self.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{words:?}: {e}"));
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &log);
        collect(child.stderr.take().unwrap(), &log);
        let mut agent = Agent {
            child,
            grpc: loopback(grpc),
            http: loopback(http),
            health: loopback(health),
            metrics: loopback(metrics),
            start_to_open: Duration::ZERO,
            log,
            dir: Some(dir),
        };
        while http_get(agent.health, "/").is_err() {
            assert!(agent.is_running(), "the agent ended at start");
            assert!(start.elapsed() < Duration::from_secs(10), "not ready after 10 s");
            std::thread::sleep(Duration::from_micros(500));
        }
        agent.start_to_open = start.elapsed();
        agent
    }
}

/// Keeps the last megabyte of what a process says.
fn collect(stream: impl std::io::Read + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = log.clone();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let mut log = log.lock().unwrap();
            if log.len() > 1 << 20 {
                log.clear();
            }
            log.push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}

/// A plain GET; the body of a 200, an error otherwise.
pub fn http_get(address: SocketAddr, path: &str) -> Result<String, String> {
    use std::io::{Read, Write};
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.split(' ').nth(1).unwrap_or("");
    if status == "200" { Ok(body.to_owned()) } else { Err(format!("status {status}: {body}")) }
}
