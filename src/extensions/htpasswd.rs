//! Users and password hashes in Apache's format, and the check of a password against them.
//!
//! bcrypt takes tens of milliseconds on purpose. So slow hashes are computed one at a time, off the event loop
//! where the runtime can spare the thread, and a verdict is remembered under a hash with a key of this process: a
//! client pays once, and a flood of guesses takes one core's share at most. Passwords themselves are not kept.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::runtime::{Handle, RuntimeFlavor};

/// The users of an htpasswd file.
pub(super) struct Users {
    hashes: HashMap<String, Hash>,
    /// Key of the fingerprints below, so that they say nothing outside this process.
    key: [u8; 32],
    known: Mutex<Known>,
    /// Held while a slow hash is computed.
    slow: Mutex<()>,
}

/// Fingerprints of credentials that were checked by a slow hash.
#[derive(Default)]
struct Known {
    good: HashSet<[u8; 32]>,
    bad: HashSet<[u8; 32]>,
}

enum Hash {
    Bcrypt(String),
    /// Apache's variant of MD5-crypt: salt and encoded hash.
    Apr1 {
        salt: String,
        hash: String,
    },
    Sha1([u8; 20]),
    Plain(String),
}

/// Verdicts kept of each kind: 64 KiB of fingerprints in all.
const REMEMBERED: usize = 1024;

/// A bcrypt cost of 15 takes seconds.
const MAX_BCRYPT_COST: u32 = 14;

impl Users {
    /// Reads lines of `user:hash`; empty ones and comments are skipped, a user's last line counts.
    ///
    /// # Errors
    /// A line that is not of this form, or a hash of a kind that is not supported. Hashes are not shown.
    pub(super) fn parse(text: &str) -> Result<Users, String> {
        let mut hashes = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |why: String| format!("line {}: {why}", i + 1);
            let (user, hash) = line.split_once(':').ok_or_else(|| at("expected user:hash".to_owned()))?;
            if user.is_empty() {
                return Err(at("the user has no name".to_owned()));
            }
            hashes.insert(user.to_owned(), Hash::parse(hash).map_err(at)?);
        }
        let mut key = [0; 32];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut key).map_err(|_| "the system has no random numbers".to_owned())?;
        Ok(Users { hashes, key, known: Mutex::default(), slow: Mutex::default() })
    }

    /// Whether `password` is the user's.
    pub(super) fn verify(&self, user: &str, password: &str) -> bool {
        let Some(hash) = self.hashes.get(user) else { return false };
        if !hash.is_slow() {
            return hash.verify(password);
        }
        let print = self.fingerprint(user, password);
        if let Some(verdict) = self.remembered(&print) {
            return verdict;
        }
        off_the_loop(|| {
            let _one_at_a_time = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever was before us may have been the same client.
            if let Some(verdict) = self.remembered(&print) {
                return verdict;
            }
            let verdict = hash.verify(password);
            self.remember(print, verdict);
            verdict
        })
    }

    fn fingerprint(&self, user: &str, password: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update((user.len() as u64).to_le_bytes());
        hash.update(user);
        hash.update(password);
        hash.update(self.key);
        hash.finalize().into()
    }

    fn remembered(&self, print: &[u8; 32]) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.good.contains(print).then_some(true).or_else(|| known.bad.contains(print).then_some(false))
    }

    fn remember(&self, print: [u8; 32], verdict: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Apart, so that guesses cannot push out those who know their password.
        let kept = if verdict { &mut known.good } else { &mut known.bad };
        if kept.len() >= REMEMBERED {
            kept.clear();
        }
        kept.insert(print);
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Hash, String> {
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|p| text.starts_with(p)) {
            let parts: bcrypt::HashParts = text.parse().map_err(|_| "malformed bcrypt hash".to_owned())?;
            if parts.get_cost() > MAX_BCRYPT_COST {
                let cost = parts.get_cost();
                return Err(format!(
                    "bcrypt cost {cost} takes seconds a check; the limit is {MAX_BCRYPT_COST}"
                ));
            }
            return Ok(Hash::Bcrypt(text.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("$apr1$") {
            let (salt, hash) = rest.split_once('$').ok_or_else(|| "malformed apr1 hash".to_owned())?;
            if hash.len() != 22 {
                return Err("malformed apr1 hash".to_owned());
            }
            return Ok(Hash::Apr1 { salt: salt.to_owned(), hash: hash.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("{SHA}") {
            let bytes = STANDARD.decode(rest).ok().and_then(|b| b.try_into().ok());
            return bytes.map(Hash::Sha1).ok_or_else(|| "malformed SHA hash".to_owned());
        }
        // Anything else that looks like a hash must not become a password.
        if text.starts_with('$') || text.starts_with('{') {
            return Err(
                "unsupported kind of hash; supported are bcrypt, apr1, {SHA} and plain text".to_owned()
            );
        }
        Ok(Hash::Plain(text.to_owned()))
    }

    fn is_slow(&self) -> bool {
        matches!(self, Hash::Bcrypt(_) | Hash::Apr1 { .. })
    }

    fn verify(&self, password: &str) -> bool {
        match self {
            Hash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Hash::Apr1 { salt, hash } => apr1(password, salt).as_bytes().ct_eq(hash.as_bytes()).into(),
            Hash::Sha1(want) => Sha1::digest(password).as_slice().ct_eq(want).into(),
            // Digests, so that the time taken does not tell the length.
            Hash::Plain(want) => Sha256::digest(password).as_slice().ct_eq(&Sha256::digest(want)).into(),
        }
    }
}

/// Runs slow work so that a multi-threaded runtime goes on with its other tasks.
fn off_the_loop<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Apache's MD5-crypt: a thousand rounds of MD5 over password and salt in varying order.
fn apr1(password: &str, salt: &str) -> String {
    let (password, salt) = (password.as_bytes(), salt.as_bytes());
    let salt = salt.get(..8).unwrap_or(salt);
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut start = Md5::new();
    start.update(password);
    start.update(b"$apr1$");
    start.update(salt);
    for i in (0..password.len()).step_by(16) {
        start.update(inner.get(..(password.len() - i).min(16)).unwrap_or_default());
    }
    let mut bits = password.len();
    while bits > 0 {
        let first = password.get(..1).unwrap_or_default();
        start.update(if bits & 1 == 1 { &[0] } else { first });
        bits >>= 1;
    }
    let mut hash = start.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        if odd {
            next.update(password)
        } else {
            next.update(hash)
        }
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        if odd {
            next.update(hash)
        } else {
            next.update(password)
        }
        hash = next.finalize();
    }
    encode64(hash.as_slice())
}

/// crypt's base 64: the bytes in groups of three from all over the hash, least significant digit first.
fn encode64(hash: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let byte = |i: usize| u32::from(hash.get(i).copied().unwrap_or_default());
    let mut out = String::new();
    let mut put = |mut value: u32, digits: usize| {
        for _ in 0..digits {
            out.extend(DIGITS.get(value as usize & 63).map(|d| char::from(*d)));
            value >>= 6;
        }
    };
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        put(byte(a) << 16 | byte(b) << 8 | byte(c), 4);
    }
    put(byte(11), 2);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes made by other programs.
    const FILE: &str = "# users\n\n\
        apr:$apr1$abcdefgh$NriZ3KceyQFy368Ufp8U./\n\
        empty:$apr1$x$tMwYqBfQwi3FYAr0aJc8M/\r\n\
        long:$apr1$12345678$ijH2jPLeQEUuYnNGKktmF1\n\
        sha:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n\
        plain:se:cret\n\
        twice:first\n\
        twice:second\n";

    #[test]
    fn passwords_are_checked_against_every_kind_of_hash() {
        let bcrypt = bcrypt::hash("pass word", 4).unwrap();
        let users = Users::parse(&format!("{FILE}bcrypt:{bcrypt}\n")).unwrap();
        let right = [
            ("apr", "pass word"),
            ("empty", ""),
            ("long", "a-rather-long-password-of-more-than-sixteen-bytes"),
            ("sha", "password"),
            ("plain", "se:cret"),
            ("twice", "second"),
            ("bcrypt", "pass word"),
        ];
        for (user, password) in right {
            // The second time from memory.
            for _ in 0..2 {
                assert!(users.verify(user, password), "{user}");
                assert!(!users.verify(user, &format!("{password}x")), "{user}");
                assert!(!users.verify(user, "\0"), "{user}");
            }
        }
        assert!(!users.verify("nobody", ""));
        assert!(!users.verify("sha", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="));
        assert!(!users.verify("twice", "first"));
    }

    #[test]
    fn what_is_no_password_does_not_become_one() {
        let cases = [
            ("user", "line 1: expected user:hash"),
            ("a:b\n:hash", "line 2: the user has no name"),
            ("a:$6$salt$hash", "unsupported kind of hash"),
            ("a:{SSHA}abc", "unsupported kind of hash"),
            ("a:$apr1$salt", "malformed apr1"),
            ("a:$apr1$salt$short", "malformed apr1"),
            ("a:{SHA}short", "malformed SHA"),
            ("a:$2y$05$short", "malformed bcrypt"),
            ("a:$2y$31$abcdefghijklmnopqrstuuGqvJuUoHiTWqR7hdNlXj9ilTqOO5wG6", "takes seconds"),
        ];
        for (text, want) in cases {
            let Err(why) = Users::parse(text) else { panic!("accepted {text}") };
            assert!(why.contains(want), "{text}: {why}");
        }
    }

    #[test]
    fn verdicts_are_remembered_within_bounds() {
        let users = Users::parse(&format!("u:{}", bcrypt::hash("right", 4).unwrap())).unwrap();
        assert!(users.verify("u", "right"));
        for i in 0..REMEMBERED + 10 {
            users.remember(users.fingerprint("u", &i.to_string()), false);
        }
        let known = users.known.lock().unwrap();
        assert_eq!((known.good.len(), known.bad.len()), (1, 10));
        drop(known);
        assert_eq!(users.remembered(&users.fingerprint("u", "right")), Some(true));
        assert_ne!(users.fingerprint("a", "bc"), users.fingerprint("ab", "c"));
    }

    #[allow(
        clippy::await_holding_lock,
        reason = "held by the test on purpose, outside the runtime's workers"
    )]
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn slow_hashes_leave_the_runtime_running() {
        let users =
            std::sync::Arc::new(Users::parse(&format!("u:{}", bcrypt::hash("p", 4).unwrap())).unwrap());
        // The lock is held, so the check hangs; on the only worker, another task must still run.
        let held = users.slow.lock().unwrap();
        let checking = users.clone();
        let supervisor = crate::pipeline::runtime::Supervisor::default();
        let (tx, rx) = tokio::sync::oneshot::channel();
        let check = supervisor.spawn("check", async move {
            assert!(checking.verify("u", "p"));
        });
        supervisor.spawn("other", async move {
            let _ = tx.send(());
        });
        rx.await.unwrap();
        drop(held);
        check.await.unwrap();
    }
}
