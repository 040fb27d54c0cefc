//! Clients that create objects, retry like real clients, and record acknowledged creations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Cluster, Deadline};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use tokio::task::JoinSet;

/// Uids of acknowledged objects by name.
pub type Acknowledged = BTreeMap<String, String>;

/// Several clients that together create `total` ConfigMaps.
pub struct Writers {
    done: Arc<AtomicUsize>,
    tasks: JoinSet<Acknowledged>,
}

impl Writers {
    /// Starts `clients` clients. Each starts at a different master and moves to the next when one fails.
    pub async fn start(cluster: &Cluster, clients: usize, total: usize) -> Writers {
        let mut apis = Vec::new();
        for master in cluster.masters() {
            apis.push(cluster.client(&master.name).await);
        }
        let done = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let (apis, done) = (apis.clone(), done.clone());
            tasks.spawn(async move {
                let mut acknowledged = Acknowledged::new();
                for i in (client..total).step_by(clients) {
                    let name = format!("write-{i:05}");
                    let uid = create(&apis, client, &name).await;
                    acknowledged.insert(name, uid);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            });
        }
        Writers { done, tasks }
    }

    /// Waits until `count` creations are acknowledged.
    pub async fn reached(&self, count: usize) {
        harness::eventually_async("enough writes", || async {
            let done = self.done.load(Ordering::Relaxed);
            if done >= count { Ok(()) } else { Err(done) }
        })
        .await;
    }

    /// Waits until all creations are done, and returns the acknowledged objects.
    pub async fn finish(self) -> Acknowledged {
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

/// Creates one ConfigMap at any master that answers, and returns its uid.
async fn create(masters: &[Client], first: usize, name: &str) -> String {
    let object = ConfigMap {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some([("name".to_owned(), name.to_owned())].into()),
        ..Default::default()
    };
    let started = std::time::Instant::now();
    for master in masters.iter().cycle().skip(first) {
        let api: Api<ConfigMap> = Api::default_namespaced(master.clone());
        match tokio::time::timeout(Duration::from_secs(10), api.create(&PostParams::default(), &object)).await {
            Ok(Ok(created)) => return created.uid().expect("a uid"),
            // An earlier attempt whose answer was lost has created the object.
            Ok(Err(kube::Error::Api(status))) if status.reason == "AlreadyExists" => {
                if let Ok(found) = api.get(name).await {
                    return found.uid().expect("a uid");
                }
            }
            Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                panic!("{name} was refused: {status:?}");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        assert!(started.elapsed() < Deadline::default().0, "{name} could not be created");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("the masters are tried in an endless loop")
}

/// Checks that a master has exactly the acknowledged objects with their uids, each once.
pub async fn check_all_there(cluster: &Cluster, master: &str, acknowledged: &Acknowledged) {
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client(master).await);
    let list = harness::eventually_async("a list", || async {
        let list = api.list(&ListParams::default()).await;
        list.map_err(|error| error.to_string())
    })
    .await;
    let found = list
        .iter()
        .filter(|object| object.name_any().starts_with("write-"))
        .map(|object| (object.name_any(), object.uid().expect("a uid")))
        .collect::<Vec<_>>();
    let unique = found.iter().cloned().collect::<Acknowledged>();
    assert_eq!(found.len(), unique.len(), "{master} lists an object twice");
    assert_eq!(&unique, acknowledged, "the objects on {master} differ from the acknowledged ones");
}
