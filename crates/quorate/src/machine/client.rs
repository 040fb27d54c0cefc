//! Requests to the masters by a machine that joins the cluster or renews its certificates.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::{Client, Config};
use quorate_pki::{JoinToken, Pin};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Time during which a join is retried, because a master that has just started needs a moment.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Masters that are tried one after the other.
pub struct Masters {
    urls: Vec<String>,
}

/// Refusal by a master; a retry does not help.
#[derive(Debug)]
struct Refused(anyhow::Error);

type Attempt<T> = Result<T, Result<anyhow::Error, Refused>>;

/// Client certificate and its key, PEM.
pub struct ClientCertificate<'a> {
    pub cert_pem: &'a str,
    pub key_pem: &'a str,
}

impl Masters {
    /// Each master is `https://host:port` or `host:port`.
    pub fn new<'a>(masters: impl IntoIterator<Item = &'a String>) -> Masters {
        let url = |master: &String| format!("https://{}", master.trim_start_matches("https://").trim_end_matches('/'));
        Masters { urls: masters.into_iter().map(url).collect() }
    }

    /// Joins with a token. It fetches the authority's certificate over an unverified connection, checks it against the
    /// hash in the token, and sends the request only over a connection that this authority certifies. Returns the
    /// certificate and the answer.
    pub async fn join<T: DeserializeOwned>(&self, token: &JoinToken, body: &Value) -> anyhow::Result<(String, T)> {
        self.first(JOIN_TIMEOUT, async |url| {
            let authority_pem = fetch_authority(url, &token.pin).await?;
            let answer = post(url, &authority_pem, None, "/quorum/join", body).await?;
            Ok((authority_pem, answer))
        })
        .await
    }

    /// Requests the renewal of certificates.
    pub async fn renew<T: DeserializeOwned>(
        &self,
        authority_pem: &str,
        client_certificate: &ClientCertificate<'_>,
        body: &Value,
    ) -> anyhow::Result<T> {
        self.first(Duration::ZERO, async |url| {
            post(url, authority_pem, Some(client_certificate), "/quorum/renew", body).await
        })
        .await
    }

    /// Returns the URLs of the current masters.
    pub async fn list(
        &self,
        authority_pem: &str,
        client_certificate: &ClientCertificate<'_>,
    ) -> anyhow::Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Quorum {
            members: Vec<Member>,
        }
        #[derive(serde::Deserialize)]
        struct Member {
            api: String,
        }
        let ask = async |url: &str| {
            let request = http::Request::get("/quorum").body(Vec::new());
            send::<Quorum>(url, authority_pem, Some(client_certificate), request).await
        };
        let quorum = self.first(Duration::ZERO, ask).await?;
        Ok(quorum.members.into_iter().map(|member| member.api).collect())
    }

    async fn first<T>(&self, patience: Duration, ask: impl AsyncFn(&str) -> Attempt<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let mut problem = anyhow::anyhow!("no master is named");
            for url in &self.urls {
                match ask(url).await {
                    Ok(answer) => return Ok(answer),
                    Err(Err(Refused(reason))) => return Err(reason.context(format!("{url} refuses"))),
                    Err(Ok(error)) => {
                        tracing::info!(url, error = format!("{error:#}"), "the master does not answer yet");
                        problem = error.context(format!("{url} does not answer"));
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(problem);
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}

async fn fetch_authority(url: &str, pin: &Pin) -> Attempt<String> {
    let fetch = async || {
        let mut config = config(url)?;
        // The server is not verified here; its answer is checked against the hash.
        config.accept_invalid_certs = true;
        let client = Client::try_from(config)?;
        anyhow::Ok(client.request_text(http::Request::get("/quorum/authority").body(Vec::new())?).await)
    };
    let pem = match fetch().await {
        Ok(answer) => answer.map_err(classify)?,
        Err(error) => return Err(Ok(error)),
    };
    check_authority(&pem, pin).map_err(|error| Err(Refused(error)))?;
    // The library has just warned that the certificate was not checked.
    tracing::info!(url, "the cluster's authority is the one that the token names");
    Ok(pem)
}

/// Checks that a document consists of exactly the certificate that `pin` identifies.
fn check_authority(pem: &str, pin: &Pin) -> anyhow::Result<()> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).count();
    ensure!(found == 1, "it sent {found} certificates instead of the one of the cluster's authority");
    let own = Pin::of_certificate(pem.as_bytes())?;
    ensure!(
        own == *pin,
        "its authority is not the one that the token names (it has {own}, the token {pin}): this is another cluster, or \
         somebody is in between"
    );
    Ok(())
}

async fn post<T: DeserializeOwned>(
    url: &str,
    authority_pem: &str,
    client_certificate: Option<&ClientCertificate<'_>>,
    path: &str,
    body: &Value,
) -> Attempt<T> {
    let body = serde_json::to_vec(body).map_err(|error| Ok(error.into()))?;
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json").body(body);
    send(url, authority_pem, client_certificate, request).await
}

/// Sends a request to a master whose certificate the authority has signed.
async fn send<T: DeserializeOwned>(
    url: &str,
    authority_pem: &str,
    client_certificate: Option<&ClientCertificate<'_>>,
    request: http::Result<http::Request<Vec<u8>>>,
) -> Attempt<T> {
    let send = async move || {
        let mut config = config(url)?;
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).context("the authority")?;
        config.root_cert = Some(vec![authority.to_vec()]);
        if let Some(ClientCertificate { cert_pem, key_pem }) = client_certificate {
            config.auth_info.client_certificate_data = Some(STANDARD.encode(cert_pem));
            config.auth_info.client_key_data = Some(STANDARD.encode(key_pem).into());
        }
        let client = Client::try_from(config)?;
        anyhow::Ok(client.request::<T>(request?).await)
    };
    match send().await {
        Ok(answer) => answer.map_err(classify),
        Err(error) => Err(Ok(error)),
    }
}

fn config(url: &str) -> anyhow::Result<Config> {
    let mut config = Config::new(url.parse().with_context(|| format!("{url:?} is not a URL"))?);
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(REQUEST_TIMEOUT);
    config.write_timeout = Some(REQUEST_TIMEOUT);
    config.proxy_url = None;
    config.default_retry = false;
    Ok(config)
}

/// Distinguishes a refusal from a transient failure.
fn classify(error: kube::Error) -> Result<anyhow::Error, Refused> {
    match error {
        kube::Error::Api(status) if status.code < 500 && status.code != 429 => {
            Err(Refused(anyhow::anyhow!(status.message.clone())))
        }
        kube::Error::Api(status) => Ok(anyhow::anyhow!(status.message.clone())),
        error => Ok(error.into()),
    }
}

/// Fails when this directory has joined another cluster before.
pub fn check_cluster(directory_pem: &str, pin: &Pin) -> anyhow::Result<()> {
    if Pin::of_certificate(directory_pem.as_bytes())? != *pin {
        bail!("this directory belongs to a different cluster than the token; use another --data-dir");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_pki::Authority;

    use super::*;

    #[test]
    fn only_the_pinned_authority_is_trusted() {
        let day = Duration::from_secs(24 * 3600);
        let [own, other] = [(); 2].map(|()| Authority::create("ca", day).expect("an authority"));
        check_authority(own.certificate_pem(), own.pin()).expect("its own");
        let refused = check_authority(other.certificate_pem(), own.pin()).expect_err("another").to_string();
        assert!(refused.contains("somebody is in between"), "{refused}");
        // Only the first certificate is checked, so a second one must be refused.
        let both = format!("{}{}", own.certificate_pem(), other.certificate_pem());
        check_authority(&both, own.pin()).expect_err("one more");
        check_authority("", own.pin()).expect_err("none");
    }
}
