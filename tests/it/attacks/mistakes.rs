//! The operator, by mistake.

use crate::harness::bitcoind::Bitcoind;
use crate::harness::ports::free_address;
use crate::harness::postgres;
use crate::harness::process::{Gateway, Site};
use crate::harness::rig::Database;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_a_database_that_is_not_there_finds_no_drift() {
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(None, &node);
    let elsewhere = site.folder().join("nowhere/sluice.db");
    let missing = site.clone().with("store.url", format!("sqlite:{}", elsewhere.display()));
    let output = missing.run(&["audit"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("there is no database at"), "{said}");
    assert_eq!(output.stdout, b"");
    assert!(!elsewhere.parent().expect("a folder").exists(), "it was made");

    let empty = site.folder().join("empty.db");
    std::fs::write(&empty, "").expect("a file");
    let output = site.clone().with("store.url", format!("sqlite:{}", empty.display())).run(&["audit"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("never used by a gateway"), "{said}");
    assert_eq!(std::fs::read(&empty).expect("it is there"), b"", "it was written to");

    if let Some(unused) = postgres::database().await {
        let output = site.clone().with("store.url", unused).run(&["audit"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("never used by a gateway"), "{said}");
    }

    let gateway = Gateway::start(&site).await;
    gateway.wait_ready().await;
    gateway.terminate().await;
    site.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_goes_unnoticed_until_somebody_is_paid() {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(site) = Site::new(Database::Sqlite, &node).await else { return };
    let site = site.outliving_full_disks();
    let gateway = Gateway::start(&site).await;
    gateway.wait_ready().await;
    gateway.limit_files(Some(0));
    let failing = gateway.wait_health("it notices", |answer| answer.status == 503).await;
    assert_eq!(failing.body["rails"]["store"]["ok"], false, "{failing:?}");
    assert!(failing.body["rails"]["store"]["reason"].as_str().is_some_and(|why| !why.is_empty()), "{failing:?}");
    assert_eq!(failing.body["rails"]["chain"]["connected"], true, "the others are told apart");
    gateway.limit_files(None);
    gateway.wait_ready().await;
    gateway.terminate().await;
    assert_eq!(site.audit().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_listener_that_is_moved_makes_a_container_unhealthy_for_ever() {
    // What the container asks is asked word for word.
    let dockerfile = include_str!("../../../Dockerfile");
    assert!(dockerfile.contains(r#"CMD ["sluice", "health", "--live"]"#), "the container asks something else");
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(None, &node).with("operator.listen", free_address().to_string());
    let gateway = Gateway::start(&site).await;
    gateway.wait_ready().await;
    let asked = site.run(&["health", "--live"]).await;
    assert!(asked.status.success(), "{asked:?}");
    // It lives without a node, and says so, though it is not ready.
    node.stop().await;
    gateway.wait_health("the node is missed", |answer| answer.status == 503).await;
    assert!(site.run(&["health", "--live"]).await.status.success());
    assert!(!site.run(&["health"]).await.status.success());
    gateway.terminate().await;
    let asked = site.run(&["health", "--live"]).await;
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(!asked.status.success() && said.contains("no answer"), "{said}");
    assert_eq!(site.audit().await, 0);
}
