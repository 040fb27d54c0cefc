//! Commands about Deployments and Services.

use super::Kubectl;
use crate::demo_path::TEST_IMAGE;

const ROLLED: &str = "deployment \"web\" successfully rolled out\n";

/// A Deployment whose pods end at once.
fn web() -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: main, image: {TEST_IMAGE}, imagePullPolicy: Never, command: [httpd, -f, -p, '8080'], ports: [{{containerPort: 8080}}]}}
"
    )
}

fn rolls(kubectl: &Kubectl<'_>) {
    kubectl.shows("rollout status deployment/web --timeout=120s", &[ROLLED]);
}

pub fn deployments_roll(kubectl: &Kubectl<'_>) {
    assert_eq!(kubectl.given("apply -f -", &web()), "deployment.apps/web created\n");
    rolls(kubectl);
    kubectl.shows("events --for deployment/web", &["LAST SEEN", "ScalingReplicaSet", "Deployment/web", "Scaled up"]);
    kubectl
        .shows("wait deployment/web --for=condition=Available --timeout=60s", &["deployment.apps/web condition met"]);
    kubectl.says(
        "wait deployment/web --for=jsonpath={.status.readyReplicas}=2 --timeout=60s",
        "deployment.apps/web condition met\n",
    );
    kubectl.says("scale deployment/web --replicas=3 --current-replicas=2", "deployment.apps/web scaled\n");
    rolls(kubectl);
    kubectl.fails("scale deployment/web --replicas=1 --current-replicas=2", "Expected replicas to be 2, was 3");
    kubectl.says("scale deployment/web --replicas=1 --timeout=60s", "deployment.apps/web scaled\n");
    kubectl.says("autoscale deployment/web --min=1 --max=3", "horizontalpodautoscaler.autoscaling/web autoscaled\n");
    kubectl.shows("get hpa web", &["Deployment/web", "1", "3"]);
    kubectl.shows("describe hpa web", &["Min replicas:", "1", "Max replicas:", "3"]);

    kubectl.says("annotate deployment/web kubernetes.io/change-cause=first", "deployment.apps/web annotated\n");
    kubectl.says("set env deployment/web COLOUR=green", "deployment.apps/web env updated\n");
    rolls(kubectl);
    kubectl.shows("set env deployment/web --list", &["# Deployment web, container main\n", "COLOUR=green\n"]);
    kubectl.says(
        "set resources deployment/web -c main --limits=memory=32Mi --requests=cpu=10m",
        "deployment.apps/web resource requirements updated\n",
    );
    kubectl.says("set serviceaccount deployment/web made", "deployment.apps/web serviceaccount updated\n");
    rolls(kubectl);
    kubectl.says("set image deployment/web main=quorate/nothing:1", "deployment.apps/web image updated\n");
    kubectl.shows("rollout history deployment/web", &["REVISION  CHANGE-CAUSE\n1", "first\n", "5"]);
    kubectl.shows("rollout history deployment/web --revision=2", &["with revision #2", "COLOUR:\tgreen"]);
    kubectl.says("rollout undo deployment/web", "deployment.apps/web rolled back\n");
    rolls(kubectl);
    kubectl.says("rollout undo deployment/web --to-revision=2", "deployment.apps/web rolled back\n");
    rolls(kubectl);
    kubectl.says("get deployment/web -o jsonpath={.spec.template.spec.containers[0].resources}", "{}");
    kubectl.says("rollout pause deployment/web", "deployment.apps/web paused\n");
    kubectl.fails("rollout restart deployment/web", "can't restart paused deployment");
    kubectl.says("rollout resume deployment/web", "deployment.apps/web resumed\n");
    kubectl.says("rollout restart deployment/web", "deployment.apps/web restarted\n");
    rolls(kubectl);
    kubectl.says(
        "set subject rolebinding made --user=somebody",
        "rolebinding.rbac.authorization.k8s.io/made subjects updated\n",
    );
    kubectl.says("get rolebinding made -o jsonpath={.subjects[*].name}", "made somebody");
}

pub fn services_are_exposed(kubectl: &Kubectl<'_>) {
    kubectl.says("expose deployment/web --port=80 --target-port=8080", "service/web exposed\n");
    kubectl.says("get service web -o jsonpath={.spec.selector}", "{\"app\":\"web\"}");
    let address = kubectl.ok("get pods -l app=web -o jsonpath={.items[0].status.podIP}");
    kubectl.field_becomes("endpoints web", "{.subsets[*].addresses[*].ip}", &address);
    kubectl.shows("describe service web", &["TargetPort:", "8080/TCP", "Endpoints:", &format!("{address}:8080")]);
    kubectl.says("set selector service web app=nothing", "service/web selector updated\n");
    kubectl.field_becomes("endpoints web", "{.subsets}", "");
    kubectl.says("set selector service web app=web", "service/web selector updated\n");
    kubectl.field_becomes("endpoints web", "{.subsets[*].addresses[*].ip}", &address);
}
