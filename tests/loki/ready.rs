//! The ready configurations in `pipelines/` do what they say.

use std::time::Duration;

use super::{arrived, logs, record, send};
use crate::support::agent::Agent;
use crate::support::loki::{Loki, Options};
use crate::support::otlp::attributes;

/// An agent with the file as it is, but for the ports.
fn start(file: &str, loki: &Loki) -> Agent {
    let path = format!("{}/pipelines/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut yaml = std::fs::read_to_string(path).unwrap();
    for (port, mark) in [("4317", "GRPC"), ("4318", "HTTP"), ("13133", "HEALTH")] {
        let there = format!("0.0.0.0:{port}");
        assert!(yaml.contains(&there), "{file}: {there}");
        yaml = yaml.replace(&there, &format!("127.0.0.1:@{mark}@"));
    }
    Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &yaml)
        .env("LOKI_ENDPOINT", &format!("http://{}", loki.address))
        .env("LOKI_TENANT", "everyone")
        .env("CLUSTER", "eu-1")
        .start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_files_bring_logs_to_loki() {
    for (file, cluster, tenants) in [
        ("logs-loki.yaml", "cluster", &["everyone", "team-a"][..]),
        ("logs-loki-otlp.yaml", "k8s_cluster_name", &["everyone"]),
    ] {
        let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
        let mut agent = start(file, &loki);
        let mut one = record(
            "paid",
            &[
                ("enduser.id", &"jane"),
                ("http.request.header.authorization", &"secret"),
                ("request_id", &"r-1"),
            ],
        );
        one.severity_number = 9;
        let of = |name: &str| attributes(&[("service.name", &name)]);
        let mut team = of("cart");
        team.extend(attributes(&[("tenant.id", &"team-a")]));
        send(&agent, vec![logs(of("shop"), None, vec![one]), logs(team, None, vec![record("x", &[])])]);
        arrived(&loki, 2).await;
        let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
        assert!(status.success() && loki.violations().is_empty(), "{file}: {:?}", loki.violations());
        assert_eq!(loki.tenants(), tenants, "{file}");
        let query = format!("{{service_name=\"shop\", {cluster}=\"eu-1\"}} | request_id=\"r-1\"");
        let rows = loki.query("everyone", &query);
        assert_eq!(rows.len(), 1, "{file}");
        let entry = &rows[0].entry;
        assert_eq!((entry.line.as_str(), entry.get("http_request_header_authorization")), ("paid", None));
        assert!(entry.get("enduser_id").is_some_and(|id| id.len() >= 40 && id != "jane"), "{entry:?}");
        if file == "logs-loki.yaml" {
            assert_eq!(rows[0].label("level"), Some("info"));
            assert_eq!(loki.query("team-a", r#"{service_name="cart"}"#).len(), 1);
        }
    }
}
