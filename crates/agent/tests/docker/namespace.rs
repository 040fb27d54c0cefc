//! Agents in a mount namespace of their own.

use std::process::Command;

use quorate_agent::{AgentError, RuntimeChoice};
use tokio_util::sync::CancellationToken;

use crate::harness::Node1;

/// Set in the process that this test starts in another mount namespace.
const ISOLATED: &str = "QUORATE_TEST_ISOLATED";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_mounts_the_engine_does_not_see_is_refused() {
    let Some(node) = Node1::prepare().await else { return };
    if std::env::var_os(ISOLATED).is_none() {
        // `ip netns exec` makes such a namespace, in which mounts arrive from outside but are not passed on.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave"]).arg(std::env::current_exe().expect("this test"));
        command.args(["--exact", "namespace::an_agent_whose_mounts_the_engine_does_not_see_is_refused", "--nocapture"]);
        let output = command.env(ISOLATED, "1").output().expect("unshare of util-linux");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
        return;
    }
    let refused = node.agent(RuntimeChoice::Docker { endpoint: None }).run(CancellationToken::new()).await;
    let Err(error @ AgentError::Invisible { .. }) = refused else { panic!("{refused:?}") };
    let message = error.to_string();
    assert!(
        message.contains(&format!("does not see what this agent mounts in {}", node.data_dir().display())),
        "{message}"
    );
    assert!(!message.contains('\n'), "{message}");
}
