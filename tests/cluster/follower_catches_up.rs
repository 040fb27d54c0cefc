//! Catch-up of a follower that missed many writes.

use harness::{Cluster, Runtime, Spec, eventually_async};

use crate::writers::{Writers, check_all_there};

const WRITES: usize = 50_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_missed_fifty_thousand_writes_catches_up() {
    let cluster = Cluster::start(Spec { masters: 3, workers: 0, runtime: Runtime::Hollow, flags: vec![] });
    let leader = cluster.leader_seen_by("master-1");
    let follower = cluster.masters().into_iter().map(|m| m.name).find(|name| *name != leader).expect("a follower");
    cluster.kill(&follower);
    let acknowledged = Writers::start(&cluster, 64, WRITES).await.finish().await;
    cluster.revive();
    check_all_there(&cluster, &follower, &acknowledged).await;

    let mut clients = Vec::new();
    for master in cluster.masters() {
        clients.push(cluster.client(&master.name).await);
    }
    // The leader may still write for housekeeping, so hashes are only compared at equal revisions.
    eventually_async("equal hashes at an equal revision", || async {
        let mut hashes = Vec::new();
        for client in &clients {
            let request = http::Request::get("/quorum/hash").body(Vec::new()).expect("a request");
            let hash: serde_json::Value = client.request(request).await.map_err(|e| e.to_string())?;
            hashes.push(hash);
        }
        if hashes.iter().all(|hash| hash["revision"].is_u64() && hash["hash"].is_string() && *hash == hashes[0]) {
            Ok(())
        } else {
            let same = hashes.iter().all(|hash| hash["revision"] == hashes[0]["revision"]);
            assert!(!same, "states differ at the same revision: {hashes:?}");
            Err(format!("{hashes:?}"))
        }
    })
    .await;
}
