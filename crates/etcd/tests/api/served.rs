//! A server for the tests, and the refusals that its clients see.

use etcd_client::{Client, Error};
use quorate_etcd::{Access, Guard, ServerConfig, serve};
use quorate_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A served store. Dropping it shuts the server down.
pub struct Served {
    pub client: Client,
    pub address: String,
    pub store: Store,
    pub stop: DropGuard,
}

/// Serves a new store with the given response budget.
pub async fn start(answers_bytes: usize) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let shutdown = CancellationToken::new();
    let config = ServerConfig { listener, access: Access::Plain, guard: Guard::default(), answers_bytes };
    let store = Store::memory();
    tokio::spawn(serve(store.clone(), config, shutdown.clone()));
    let client = Client::connect([address.as_str()], None).await.expect("a client");
    Served { client, address, store, stop: shutdown.drop_guard() }
}

/// Returns the code and message of a refusal.
pub fn refusal<T>(answer: Result<T, Error>) -> (String, String) {
    match answer {
        Err(Error::GRpcStatus(status)) => (format!("{:?}", status.code()), status.message().to_owned()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}
