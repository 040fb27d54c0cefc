use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{Behaviour, Recorded, Server};

fn cron_job(request: &Recorded) -> Option<(u16, Value)> {
    let object = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "uid": "u-1"},
        "spec": {"jobTemplate": {"metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}},
            "spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}}});
    (request.path == "/apis/batch/v1/namespaces/default/cronjobs/c").then_some((200, object))
}

fn role(rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}, "rules": rules})
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "labels": {"app": "x"}}, "spec": spec})
}

/// Every kind, with the object that kubectl makes of the same flags.
fn kinds() -> Vec<(&'static [&'static str], Value)> {
    let pod = |restart: &str, command: Value| json!({"containers": [{"name": "x", "image": "i", "command": command}], "restartPolicy": restart});
    let subjects = json!([
        {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"},
        {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "team"},
        {"kind": "ServiceAccount", "namespace": "ns", "name": "sa"}]);
    let backend = |name: &str, port: Value| json!({"service": {"name": name, "port": port}});
    vec![
        (&["namespace", "x"], json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})),
        (&["sa", "x"], json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}})),
        (
            &["configmap", "x", "--from-literal=a=b=c", "--from-literal=q='x'"],
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b=c", "q": "x"}}),
        ),
        (
            &["secret", "generic", "x", "--from-literal=a=b=c", "--type=t"],
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "type": "t", "data": {"a": "Yj1j"}}),
        ),
        (
            &["secret", "docker-registry", "x", "--docker-server=h", "--docker-username=u", "--docker-password=p"],
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "type": "kubernetes.io/dockerconfigjson",
                // {"auths":{"h":{"auth":"dTpw","password":"p","username":"u"}}}
                "data": {".dockerconfigjson": "eyJhdXRocyI6eyJoIjp7ImF1dGgiOiJkVHB3IiwicGFzc3dvcmQiOiJwIiwidXNlcm5hbWUiOiJ1In19fQ=="}}),
        ),
        (
            &["deployment", "x", "--image=team/i:1,j", "--replicas=2", "--port=80"],
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"app": "x"}},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": {
                    "metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
                        {"name": "i", "image": "team/i:1", "ports": [{"containerPort": 80}]}, {"name": "j", "image": "j"}]}}}}),
        ),
        (
            &["job", "x", "--image=i", "--", "date"],
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"},
                "spec": {"template": {"spec": pod("Never", json!(["date"]))}}}),
        ),
        (
            &["job", "x", "--from=cronjob/c"],
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x", "labels": {"a": "b"},
                "annotations": {"cronjob.kubernetes.io/instantiate": "manual", "x": "y"}, "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "u-1", "controller": true}]},
                "spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}),
        ),
        (
            &["cronjob", "x", "--image=i", "--schedule=*/5 * * * *", "--", "date", "-u"],
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "x"}, "spec": {
                "schedule": "*/5 * * * *", "jobTemplate": {"metadata": {"name": "x"},
                    "spec": {"template": {"spec": pod("OnFailure", json!(["date", "-u"]))}}}}}),
        ),
        (
            &["service", "clusterip", "x", "--tcp=80:8080,443:https"],
            service(json!({"type": "ClusterIP", "selector": {"app": "x"}, "ports": [
                {"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080},
                {"name": "443-https", "port": 443, "protocol": "TCP", "targetPort": "https"}]})),
        ),
        (
            &["service", "clusterip", "x", "--clusterip=None"],
            service(json!({"type": "ClusterIP", "selector": {"app": "x"}, "clusterIP": "None"})),
        ),
        (
            &["service", "nodeport", "x", "--tcp=80", "--node-port=30080"],
            service(json!({"type": "NodePort", "selector": {"app": "x"}, "ports": [
                {"name": "80", "port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}]})),
        ),
        (
            &["service", "loadbalancer", "x", "--tcp=80"],
            service(json!({"type": "LoadBalancer", "selector": {"app": "x"}, "ports": [
                {"name": "80", "port": 80, "protocol": "TCP", "targetPort": 80}]})),
        ),
        (
            &["service", "externalname", "x", "--external-name=example.org"],
            service(json!({"type": "ExternalName", "selector": {"app": "x"}, "externalName": "example.org"})),
        ),
        (
            &[
                "ingress",
                "x",
                "--class=c",
                "--annotation=a=b",
                "--default-backend=d:http",
                "--rule=a.b/p*=s:80,tls=t",
                "--rule=a.b/q=s:web",
                "--rule=c.d/=s:80,tls=t",
                "--rule=/=e:1,tls",
            ],
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "x", "annotations": {"a": "b"}},
                "spec": {"ingressClassName": "c", "defaultBackend": backend("d", json!({"name": "http"})),
                    "tls": [{"hosts": ["a.b", "c.d"], "secretName": "t"}],
                    "rules": [
                        {"host": "a.b", "http": {"paths": [
                            {"path": "/p", "pathType": "Prefix", "backend": backend("s", json!({"number": 80}))},
                            {"path": "/q", "pathType": "Exact", "backend": backend("s", json!({"name": "web"}))}]}},
                        {"host": "c.d", "http": {"paths": [
                            {"path": "/", "pathType": "Exact", "backend": backend("s", json!({"number": 80}))}]}},
                        {"http": {"paths": [
                            {"path": "/", "pathType": "Exact", "backend": backend("e", json!({"number": 1}))}]}}]}}),
        ),
        (
            &["role", "x", "--verb=get,list,get", "--resource=po,deploy/scale,pods", "--resource-name=n"],
            role(json!([
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"], "resourceNames": ["n"]},
                {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "list"], "resourceNames": ["n"]}])),
        ),
        (
            &["role", "x", "--verb=*,get", "--resource=*"],
            role(json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}])),
        ),
        (
            &["role", "x", "--verb=impersonate", "--resource=users"],
            role(json!([{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]}])),
        ),
        (
            &["clusterrole", "x", "--verb=get", "--resource=pods", "--non-resource-url=/healthz,/logs/*"],
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x"}, "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                {"nonResourceURLs": ["/healthz", "/logs/*"], "verbs": ["get"]}]}),
        ),
        (
            &["clusterrole", "x", "--aggregation-rule=a=b,c=d"],
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x"},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b", "c": "d"}}]}}),
        ),
        (
            &["rolebinding", "x", "--clusterrole=admin", "--user=jane", "--group=team", "--serviceaccount=ns:sa"],
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "x"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}, "subjects": subjects}),
        ),
        (
            &["clusterrolebinding", "x", "--clusterrole=admin", "--user", "jane"],
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "x"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]}),
        ),
        (
            &["pdb", "x", "--selector=app=web,tier in (a,b),!old", "--min-available=50%"],
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"}, "spec": {
                "minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
                    {"key": "old", "operator": "DoesNotExist"}, {"key": "tier", "operator": "In", "values": ["a", "b"]}]}}}),
        ),
        (
            &["pdb", "x", "--selector=app=web", "--max-unavailable=1"],
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"},
                "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        ),
        (
            &["priorityclass", "x", "--value=-5", "--global-default=true", "--description=d"],
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "x"}, "value": -5,
                "globalDefault": true, "description": "d", "preemptionPolicy": "PreemptLowerPriority"}),
        ),
        (
            &["quota", "x", "--hard=cpu=1,memory=1G", "--scopes=BestEffort"],
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "x"},
                "spec": {"hard": {"cpu": "1", "memory": "1G"}, "scopes": ["BestEffort"]}}),
        ),
    ]
}

#[tokio::test]
async fn every_kind_is_made_from_its_flags() {
    let server = Server::start(Behaviour::answers(cron_job)).await;
    for (flags, expected) in kinds() {
        let args = [&["create", "--", ""][..1], flags].concat();
        let (before, command) = match args.iter().position(|word| *word == "--") {
            Some(at) => args.split_at(at),
            None => (&args[..], &[][..]),
        };
        let line = [before, &["--dry-run=client", "-o", "json"], command].concat();
        let ran = server.qctl(&line, "").await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line:?}");
        let object: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(object, expected, "{line:?}");
    }
    let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/apis/batch/v1/namespaces/default/cronjobs/c"], "a client-side dry run sends nothing");
}

#[tokio::test]
async fn flags_that_make_no_object_are_refused() {
    let server = Server::start(Behaviour::answers(|_| None)).await;
    for (flags, message) in [
        (&["job", "x"][..], "either --image or --from must be specified"),
        (&["job", "x", "--from=pod/a"], "a job cannot be made from a pod"),
        (&["job", "x", "--from=cj/c", "--", "x"], "cannot specify --from and command"),
        (
            &["deployment", "x", "--image=a", "--image=b", "--", "x"],
            "cannot specify multiple --image options and command",
        ),
        (&["service", "clusterip", "x"], "at least one tcp port specifier must be provided"),
        (&["service", "externalname", "x", "--external-name=A_b"], "invalid service external name A_b"),
        (
            &["ingress", "x", "--rule=a=b"],
            "rule a=b is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]",
        ),
        (&["ingress", "x", "--default-backend=a"], "default-backend should be in format servicename:serviceport"),
        (&["role", "x", "--resource=pods"], "at least one verb must be specified"),
        (&["role", "x", "--verb=get"], "at least one resource must be specified"),
        (&["role", "x", "--verb=bind", "--resource=pods"], "can not perform 'bind' on 'pods' in group ''"),
        (&["clusterrole", "x", "--verb=list", "--non-resource-url=/x"], "invalid verb: 'list' for nonResourceURL"),
        (&["clusterrole", "x", "--verb=get", "--non-resource-url=x"], "nonResourceURL should start with /"),
        (&["rolebinding", "x", "--user=y"], "exactly one of clusterrole or role must be specified"),
        (&["rolebinding", "x", "--role=r", "--serviceaccount=y"], "serviceaccount must be <namespace>:<name>"),
        (&["pdb", "x", "--min-available=1"], "a selector must be specified"),
        (&["pdb", "x", "--selector=a=b", "--min-available=1Gi"], "invalid format specified for min-available"),
        (&["quota", "x", "--hard=cpu"], "Invalid argument syntax cpu, expected <resource>=<value>"),
        (
            &["secret", "docker-registry", "x"],
            "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required",
        ),
        (
            &["configmap", "x", "--from-env-file=a", "--from-literal=b=c"],
            "from-env-file cannot be combined with from-file or from-literal",
        ),
        (
            &["token", "x", "--bound-object-name=y"],
            "--bound-object-name can only be set if --bound-object-kind is provided",
        ),
    ] {
        let ran = server.qctl(&[&["create"][..], flags].concat(), "").await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", format!("error: {message}\n")), "{flags:?}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn objects_are_created_in_the_namespace_and_refusals_name_the_kind() {
    let server = Server::start(Behaviour::answers(|request| {
        if request.path.ends_with("/jobs") {
            let message = "jobs.batch \"x\" already exists";
            return Some((409, json!({"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": message})));
        }
        (request.path == "/api/v1/namespaces/ns/services").then(|| (201, request.body.clone()))
    }))
    .await;
    let ran =
        server.qctl(&["-n", "ns", "create", "service", "nodeport", "x", "--tcp=80", "--dry-run=server"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "service/x created (server dry run)\n", ""));
    let sent = server.requests().pop().expect("a request");
    assert_eq!((sent.method.as_str(), sent.body["metadata"]["namespace"].as_str()), ("POST", Some("ns")));
    assert_eq!(sent.query, "fieldManager=qctl&fieldValidation=Strict&dryRun=All");
    let ran = server.qctl(&["create", "job", "x", "--image=i"], "").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: failed to create job: jobs.batch \"x\" already exists\n"));
}

#[tokio::test]
async fn a_token_is_printed_alone() {
    let server = Server::start(Behaviour::answers(|request| {
        let path = "/api/v1/namespaces/default/serviceaccounts/x/token";
        (request.path == path).then(|| (201, json!({"kind": "TokenRequest", "status": {"token": "secret"}})))
    }))
    .await;
    let args =
        ["create", "token", "x", "--duration=10m", "--audience=a", "--bound-object-kind=Pod", "--bound-object-name=p"];
    let ran = server.qctl(&args, "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "secret", ""));
    let sent = server.requests().pop().expect("a request").body;
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p"});
    assert_eq!(sent["spec"], json!({"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": bound}));
}

#[tokio::test]
async fn a_secret_of_a_certificate_needs_files_of_pem() {
    let server = Server::start(Behaviour::answers(|_| None)).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("writable");
        path.display().to_string()
    };
    let (certificate, key) = (block("CERTIFICATE"), block("EC PRIVATE KEY"));
    let (cert, private) = (file("tls.crt", &certificate), file("tls.key", &key));
    let text = file("text", "CERTIFICATE PRIVATE KEY\n");
    let missing = directory.path().join("missing").display().to_string();
    let create = async |cert: &str, key: &str| {
        let args = ["create", "secret", "tls", "x", "--dry-run=client", "-o", "json", "--cert", cert, "--key", key];
        server.qctl(&args, "").await
    };
    let ran = create(&cert, &private).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let object: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let data = json!({"tls.crt": STANDARD.encode(&certificate), "tls.key": STANDARD.encode(&key)});
    let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": data,
        "type": "kubernetes.io/tls"});
    assert_eq!(object, expected);
    for (cert, key, message) in [
        (&text, &private, format!("{text} contains no CERTIFICATE in PEM\n")),
        (&cert, &text, format!("{text} contains no PRIVATE KEY in PEM\n")),
        (&private, &cert, format!("{private} contains no CERTIFICATE in PEM\n")),
        (&cert, &missing, format!("error reading {missing}: No such file or directory (os error 2)\n")),
    ] {
        let ran = create(cert, key).await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", format!("error: {message}")), "{cert} {key}");
    }
}

/// A block of PEM.
fn block(label: &str) -> String {
    format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n")
}
