use quorate_api::fence;
use quorate_store::Store;
use serde_json::{Value, json};

use super::*;
use crate::api::Api;
use crate::bootstrap::bootstrap;
use crate::local::LocalClient;
use crate::pipeline::admission::PODS;
use crate::pipeline::admission::default_tolerations::FAILED;
use crate::user::UserInfo;

async fn client(defaults: PodDefaults) -> LocalClient {
    let api = Api::new(Store::memory(), quorate_registry::builtin());
    bootstrap(&api).await.expect("the namespaces");
    api.set_pod_defaults(defaults);
    LocalClient::new(api, UserInfo::master("test"))
}

async fn created(client: &LocalClient, name: &str, annotations: Value, mut spec: Value) -> Result<Value, String> {
    spec["containers"] = json!([{"name": "c", "image": "i"}]);
    let pod = json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec});
    client.create(&PODS, Some("default"), pod).await.map_err(|status| status.message)
}

fn tolerates(key: &str, seconds: u64) -> Value {
    json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})
}

#[tokio::test]
async fn a_pod_shows_how_long_it_stays_on_a_failed_node() {
    let eviction_after = Duration::from_millis(6500);
    let client = client(PodDefaults { eviction_after, ..PodDefaults::default() }).await;
    let [not_ready, unreachable] = FAILED;
    let both = json!([tolerates(not_ready, 7), tolerates(unreachable, 7)]);
    let forever = json!({"operator": "Exists"});
    let own = tolerates(unreachable, 60);
    let other = json!({"key": "mine", "operator": "Exists"});
    let elsewhere = json!({"key": not_ready, "operator": "Exists", "effect": "NoSchedule"});
    let cases = [
        (Value::Null, both.clone()),
        (json!([other]), json!([other, both[0], both[1]])),
        (json!([own]), json!([own, both[0]])),
        (json!([elsewhere]), json!([elsewhere, both[0], both[1]])),
        (json!([forever]), json!([forever])),
    ];
    for (index, (given, expected)) in cases.into_iter().enumerate() {
        let spec = json!({"tolerations": given});
        let pod = created(&client, &format!("p{index}"), Value::Null, spec).await.expect("created");
        assert_eq!(pod["spec"]["tolerations"], expected, "{given}");
    }
    // Replacing the list keeps the default tolerations; an update that lost them would be refused.
    let mut pod = client.get(&PODS, Some("default"), "p0").await.expect("there");
    pod["spec"]["tolerations"] = json!([other]);
    let pod = client.update(&PODS, Some("default"), "p0", None, pod).await.expect("updated");
    assert_eq!(pod["spec"]["tolerations"], json!([other, both[0], both[1]]));
}

#[tokio::test]
async fn a_pod_without_an_account_gets_the_default_one() {
    let client = client(PodDefaults::default()).await;
    let cases = [
        (json!({}), "default"),
        (json!({"serviceAccountName": "own"}), "own"),
        (json!({"serviceAccount": "older"}), "older"),
    ];
    for (index, (spec, expected)) in cases.into_iter().enumerate() {
        let pod = created(&client, &format!("p{index}"), Value::Null, spec).await.expect("created");
        let names = (&pod["spec"]["serviceAccountName"], &pod["spec"]["serviceAccount"]);
        assert_eq!(names, (&json!(expected), &json!(expected)));
    }
}

#[tokio::test]
async fn the_fence_of_a_pod_is_shown_on_it_and_never_changes() {
    let fence_after = Some(Duration::from_secs(30));
    let client = client(PodDefaults { fence_after, ..PodDefaults::default() }).await;
    let cases = [
        (Value::Null, Ok("30s")),
        (json!({"mine": "x"}), Ok("30s")),
        (json!({fence::ANNOTATION: "2m"}), Ok("2m")),
        (json!({fence::ANNOTATION: "none"}), Ok("none")),
        (json!({fence::ANNOTATION: "soon"}), Err("must be a duration such as 30s or 2m, or none")),
        (json!({fence::ANNOTATION: "1s"}), Err("must be between 10s and 86400s")),
    ];
    for (index, (annotations, expected)) in cases.into_iter().enumerate() {
        let pod = created(&client, &format!("p{index}"), annotations, json!({})).await;
        match (&pod, expected) {
            (Ok(pod), Ok(expected)) => assert_eq!(pod["metadata"]["annotations"][fence::ANNOTATION], expected),
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{message}"),
            _ => panic!("{index}: {pod:?}"),
        }
    }
    for value in [json!("1m"), Value::Null] {
        let patch = json!({"metadata": {"annotations": {fence::ANNOTATION: value}}});
        for subresource in [None, Some("status")] {
            let patched = client.patch_merge(&PODS, Some("default"), "p0", subresource, patch.clone()).await;
            // A status update may change metadata, but not this annotation.
            let stored = client.get(&PODS, Some("default"), "p0").await.expect("there");
            assert_eq!(stored["metadata"]["annotations"][fence::ANNOTATION], "30s");
            assert!(subresource.is_some() || patched.is_err(), "{patched:?}");
        }
    }
}
