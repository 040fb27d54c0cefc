//! Walks every built-in kind through each of its verbs.

use http::Method;
use quorate_registry::{Descriptor, Scope, Subresource, Verb};
use serde_json::{Value, json};

use crate::harness::{Client, Lines, Server, config_map, deployment, pod};
use crate::subresources::signing_request;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Returns a name that the kind accepts, one for each word.
fn name_of(row: &Descriptor, word: &str) -> String {
    let number = ["walked", "first", "second", "third"].iter().position(|known| *known == word).expect("a known word");
    match row.kind.kind.as_ref() {
        "APIService" => format!("v{}.example.com", number + 1),
        "CustomResourceDefinition" => format!("{word}s.example.com"),
        "IPAddress" => format!("192.0.2.{}", number + 1),
        _ => word.to_owned(),
    }
}

/// Returns a minimal valid object of a kind.
fn minimal(row: &Descriptor, word: &str) -> Value {
    let name = &name_of(row, word);
    let template = |policy: &str| {
        let mut template = deployment(name)["spec"]["template"].take();
        template["spec"]["restartPolicy"] = policy.into();
        template
    };
    let rules = json!([{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"] }]);
    let hook = json!({
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": rules,
        "clientConfig": { "url": "https://example.com/" },
    });
    let policy = json!({ "matchConstraints": { "resourceRules": rules } });
    let claim = json!({ "devices": { "requests": [{ "name": "a", "exactly": { "deviceClassName": "c" } }] } });
    let mut object = match row.kind.kind.as_ref() {
        "ConfigMap" => config_map(name),
        "Pod" => pod(name),
        "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet" => deployment(name),
        "ReplicationController" => json!({ "spec": { "replicas": 2, "template": template("Always") } }),
        "Job" => json!({ "spec": { "template": template("Never") } }),
        "CronJob" => {
            json!({ "spec": { "schedule": "@daily", "jobTemplate": { "spec": { "template": template("Never") } } } })
        }
        "PodTemplate" => json!({ "template": template("Always") }),
        "Endpoints" | "Lease" | "LimitRange" | "Namespace" | "Node" | "Secret" | "ServiceAccount" => json!({}),
        "ClusterRole" | "DeviceClass" | "NetworkPolicy" | "PodDisruptionBudget" | "ResourceQuota" | "Role" => {
            json!({ "spec": {} })
        }
        "EndpointSlice" => json!({ "addressType": "IPv4", "endpoints": [] }),
        "Event" => json!({ "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" } }),
        "Service" => json!({ "spec": { "ports": [{ "port": 80 }] } }),
        "PersistentVolume" => json!({ "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/a" },
        } }),
        "PersistentVolumeClaim" => json!({ "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
        } }),
        "APIService" => {
            let version = name.split('.').next();
            json!({ "spec": {
                "group": "example.com", "version": version, "groupPriorityMinimum": 1, "versionPriority": 1,
            } })
        }
        "ControllerRevision" => json!({ "revision": 1, "data": { "any": "thing" } }),
        "HorizontalPodAutoscaler" => {
            json!({ "spec": { "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "a" } } })
        }
        "CertificateSigningRequest" => {
            let request = signing_request("a")["spec"]["request"].take();
            json!({ "spec": { "request": request, "signerName": "example.com/a", "usages": ["client auth"] } })
        }
        "Ingress" => {
            json!({ "spec": { "defaultBackend": { "service": { "name": "a", "port": { "number": 80 } } } } })
        }
        "IngressClass" => json!({ "spec": { "controller": "example.com/a" } }),
        "IPAddress" => {
            json!({ "spec": { "parentRef": { "resource": "services", "namespace": "default", "name": "a" } } })
        }
        "ServiceCIDR" => json!({ "spec": { "cidrs": ["192.0.2.0/24"] } }),
        "ClusterRoleBinding" | "RoleBinding" => json!({ "roleRef": { "kind": "ClusterRole", "name": "a" } }),
        "CSIDriver" | "VolumeAttributesClass" => json!({ "driverName": "a", "parameters": { "a": "b" }, "spec": {} }),
        "CSINode" => json!({ "spec": { "drivers": [] } }),
        "CSIStorageCapacity" => json!({ "storageClassName": "a" }),
        "StorageClass" => json!({ "provisioner": "example.com/a" }),
        "VolumeAttachment" => {
            json!({ "spec": { "attacher": "a", "nodeName": "n", "source": { "persistentVolumeName": "v" } } })
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => json!({ "webhooks": [hook] }),
        "MutatingAdmissionPolicy" | "ValidatingAdmissionPolicy" => json!({ "spec": policy }),
        "MutatingAdmissionPolicyBinding" | "ValidatingAdmissionPolicyBinding" => {
            json!({ "spec": { "policyName": "a", "validationActions": ["Deny"] } })
        }
        "CustomResourceDefinition" => json!({ "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": format!("{word}s"), "kind": "Widget" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } },
            }],
        } }),
        "PriorityClass" => json!({ "value": 1 }),
        "RuntimeClass" => json!({ "handler": "runc" }),
        "ResourceClaim" => json!({ "spec": claim }),
        "ResourceClaimTemplate" => json!({ "spec": { "spec": claim } }),
        "ResourceSlice" => json!({ "spec": {
            "driver": "d.example.com", "nodeName": "n", "pool": { "name": "p", "resourceSliceCount": 1, "generation": 1 },
        } }),
        "FlowSchema" => json!({ "spec": { "priorityLevelConfiguration": { "name": "a" } } }),
        "PriorityLevelConfiguration" => json!({ "spec": { "type": "Exempt", "exempt": {} } }),
        kind => panic!("this test does not know the kind {kind}"),
    };
    object["apiVersion"] = row.kind.api_version().into();
    object["kind"] = row.kind.kind.to_string().into();
    object["metadata"]["name"] = name.as_str().into();
    object
}

/// Returns the path of the kind's collection, in the default namespace.
fn collection(row: &Descriptor) -> String {
    let root = if row.kind.group.is_empty() { "/api" } else { "/apis" };
    let namespace = if row.scope == Scope::Namespaced { "/namespaces/default" } else { "" };
    format!("{root}/{}{namespace}/{}", row.kind.api_version(), row.resource.resource)
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a version")
}

/// Returns a condition that fits the status of every kind with conditions.
fn status(value: &str) -> Value {
    let condition = json!({
        "type": "Walked", "status": "True", "reason": "Test", "message": value,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({ "conditions": [condition] })
}

/// Returns a status without the times that the server adds to the conditions of a signing request.
fn given(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition.as_object_mut().expect("a condition").remove("lastUpdateTime");
    }
    status
}

/// The state of one kind's walk through the API.
struct Walk<'a> {
    row: &'a Descriptor,
    admin: &'a Client,
    collection: String,
    path: String,
    /// The object after each write, which the watch must show.
    written: Vec<Value>,
}

impl Walk<'_> {
    fn latest(&self) -> &Value {
        self.written.last().expect("it was created")
    }

    fn kind(&self) -> &str {
        &self.row.kind.kind
    }

    /// Records a write, which must have changed the object.
    fn wrote(&mut self, object: Value) {
        assert_ne!(version(&object), version(self.latest()), "{}", self.kind());
        self.written.push(object);
    }

    async fn create(&mut self) {
        let object = minimal(self.row, "walked");
        let created = self.admin.post(&self.collection, &object).await.expect(201);
        assert_eq!((&created["kind"], &created["apiVersion"]), (&object["kind"], &object["apiVersion"]));
        assert_eq!(created["metadata"]["uid"].as_str().map(str::len), Some(36), "{}", self.kind());
        self.written.push(created);
    }

    async fn read(&self) {
        assert_eq!(self.admin.get(&self.path).await.expect(200), *self.latest(), "{}", self.kind());
        let list = self.admin.get(&self.collection).await.expect(200);
        assert_eq!(list["kind"], self.row.list_kind.as_ref());
        assert_eq!(list["apiVersion"], self.row.kind.api_version());
        assert!(list["items"].as_array().expect("items").contains(self.latest()), "{}", self.kind());
        for path in [&self.path, &self.collection] {
            self.check_table(&self.admin.get_as(path, TABLE).await.expect(200));
        }
    }

    /// Checks that the columns are the kind's, and that the object has a row with as many cells.
    fn check_table(&self, table: &Value) {
        let columns: Vec<&str> = self.row.columns.iter().map(|column| column.name.as_ref()).collect();
        let shown = table["columnDefinitions"].as_array().expect("columns").iter();
        let shown: Vec<&str> = shown.map(|column| column["name"].as_str().expect("a name")).collect();
        assert_eq!((shown, &table["kind"]), (columns, &json!("Table")), "{}", self.kind());
        let at = self.row.columns.iter().position(|column| column.format == "name").expect("a column of names");
        let rows = table["rows"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["cells"][at] == name_of(self.row, "walked")).expect("a row of the object");
        assert_eq!(row["cells"].as_array().map(Vec::len), Some(self.row.columns.len()), "{}", self.kind());
        assert_eq!(row["object"]["metadata"], self.latest()["metadata"], "{}", self.kind());
    }

    async fn write(&mut self) {
        let mut object = self.latest().clone();
        object["metadata"]["labels"]["by"] = "put".into();
        let put = self.admin.put(&self.path, &object).await.expect(200);
        assert_eq!(put["metadata"]["labels"]["by"], "put");
        self.wrote(put);
        for kind in ["merge", "strategic-merge"] {
            let patch = json!({ "metadata": { "labels": { "by": kind }, "annotations": { kind: "yes" } } });
            let patched = self.admin.patch(&self.path, kind, &patch).await.expect(200);
            assert_eq!(patched["metadata"]["labels"]["by"], kind, "{}", self.kind());
            assert_eq!(patched["metadata"]["annotations"][kind], "yes", "{}", self.kind());
            self.wrote(patched);
        }
    }

    /// Status and the rest are written separately. Metadata may change with the status, except for a Deployment's
    /// labels.
    async fn write_status(&mut self) {
        let path = format!("{}/status", self.path);
        if !self.row.has(Subresource::Status) {
            assert_eq!(self.admin.get(&path).await.code, 404, "{}", self.kind());
            return;
        }
        assert_eq!(self.admin.get(&path).await.expect(200), *self.latest(), "{}", self.kind());
        if !self.row.schema.has(&["status", "conditions"]) {
            return;
        }
        let keeps_labels = self.kind() == "Deployment";
        let label = |asked: &str, before: &Value| match keeps_labels {
            true => before["metadata"]["labels"]["by"].clone(),
            false => asked.into(),
        };
        for kind in ["merge", "strategic-merge"] {
            let patch = json!({ "metadata": { "labels": { "by": "status" } }, "status": status(kind) });
            let expected = label("status", self.latest());
            let patched = self.admin.patch(&path, kind, &patch).await.expect(200);
            assert_eq!(given(&patched["status"])["conditions"], status(kind)["conditions"], "{}", self.kind());
            assert_eq!(patched["metadata"]["labels"]["by"], expected, "{}", self.kind());
            self.wrote(patched);
        }
        let expected = label("put", self.latest());
        let mut object = self.latest().clone();
        object["metadata"]["labels"]["by"] = "put".into();
        object["status"]["conditions"] = status("put")["conditions"].take();
        let put = self.admin.put(&path, &object).await.expect(200);
        assert_eq!(given(&put["status"]), object["status"], "{}", self.kind());
        assert_eq!(put["metadata"]["labels"]["by"], expected, "{}", self.kind());
        self.wrote(put);
        object["metadata"]["resourceVersion"] = version(self.latest()).into();
        object["metadata"]["labels"]["by"] = "last".into();
        object["status"]["conditions"] = status("elsewhere")["conditions"].take();
        let put = self.admin.put(&self.path, &object).await.expect(200);
        assert_eq!(put["status"], self.latest()["status"], "{}", self.kind());
        assert_eq!(put["metadata"]["labels"]["by"], "last", "{}", self.kind());
        self.wrote(put);
    }

    async fn scale(&mut self) {
        let path = format!("{}/scale", self.path);
        if !self.row.has(Subresource::Scale) {
            assert_eq!(self.admin.get(&path).await.code, 404, "{}", self.kind());
            return;
        }
        let mut scale = self.admin.get(&path).await.expect(200);
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)), "{}", self.kind());
        scale["spec"]["replicas"] = 3.into();
        assert_eq!(self.admin.put(&path, &scale).await.expect(200)["spec"]["replicas"], 3);
        let scaled = self.admin.get(&self.path).await.expect(200);
        assert_eq!(scaled["spec"]["replicas"], 3, "{}", self.kind());
        self.wrote(scaled);
        let patch = json!({ "spec": { "replicas": 4 } });
        assert_eq!(self.admin.patch(&path, "merge", &patch).await.expect(200)["spec"]["replicas"], 4);
        let scaled = self.admin.get(&self.path).await.expect(200);
        assert_eq!(scaled["spec"]["replicas"], 4, "{}", self.kind());
        self.wrote(scaled);
    }

    async fn delete(&mut self) {
        let deleted = self.admin.delete(&self.path, &json!({})).await.expect(200);
        if self.row.has(Subresource::Finalize) {
            let mut marked = deleted;
            self.wrote(marked.clone());
            marked["spec"]["finalizers"] = json!([]);
            self.admin.put(&format!("{}/finalize", self.path), &marked).await.expect(200);
        }
        assert_eq!(self.admin.get(&self.path).await.code, 404, "{}", self.kind());
    }

    /// Checks that the watch shows each write, and then the deletion.
    async fn check_events(&self, lines: &mut Lines) {
        for (index, object) in self.written.iter().enumerate() {
            let what = if index == 0 { "ADDED" } else { "MODIFIED" };
            assert_eq!(lines.next().await, Some(json!({ "type": what, "object": object })), "{}", self.kind());
        }
        assert_eq!(lines.named().await, ("DELETED".to_owned(), name_of(self.row, "walked")), "{}", self.kind());
    }

    async fn delete_collection(&self) {
        let path = format!("{}?labelSelector=walk%3Dtogether", self.collection);
        if !self.row.verbs.contains(&Verb::DeleteCollection) {
            assert_eq!(self.admin.delete(&path, &json!({})).await.code, 405, "{}", self.kind());
            return;
        }
        for name in ["first", "second", "third"] {
            let mut object = minimal(self.row, name);
            if name != "third" {
                object["metadata"]["labels"] = json!({ "walk": "together" });
            }
            self.admin.post(&self.collection, &object).await.expect(201);
        }
        let deleted = self.admin.delete(&path, &json!({})).await.expect(200);
        assert_eq!(deleted["kind"], self.row.list_kind.as_ref());
        assert_eq!(deleted["items"].as_array().map(Vec::len), Some(2), "{}", self.kind());
        for (name, code) in [("first", 404), ("second", 404), ("third", 200)] {
            assert_eq!(
                self.admin.get(&format!("{}/{}", self.collection, name_of(self.row, name))).await.code,
                code,
                "{}",
                self.kind()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_serves_its_verbs() {
    let server = Server::start().await;
    let admin = server.admin();
    let rows = quorate_registry::builtin();
    assert!(rows.len() > 50, "{} kinds", rows.len());
    for row in rows.iter().filter(|row| row.verbs.contains(&Verb::Create) && row.answer.is_none()) {
        let collection = collection(row);
        let path = format!("{collection}/{}", name_of(row, "walked"));
        let before = admin.get(&collection).await.expect(200);
        let mut lines = admin.watch(&format!("{collection}?watch=1&resourceVersion={}", version(&before))).await;
        let mut walk = Walk { row, admin: &admin, collection, path, written: Vec::new() };
        walk.create().await;
        walk.read().await;
        walk.write().await;
        walk.write_status().await;
        walk.scale().await;
        walk.read().await;
        walk.delete().await;
        walk.check_events(&mut lines).await;
        walk.delete_collection().await;
        let nowhere = admin.request(Method::POST, &walk.path, &[], "").await;
        assert_eq!(nowhere.code, 405, "an object of the kind {} is no collection", walk.kind());
    }
}
