//! Requests to the masters by a machine that joins the cluster or renews its certificates.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::{Client, Config};
use quorate_pki::{JoinToken, Pin};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

/// Time during which a join is retried, because a master that has just started needs a moment.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of an answer, in bytes. Nobody has verified yet who sends the authority's certificate.
const MAX_ANSWER_BYTES: usize = 1 << 20;
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Masters that are tried one after the other.
pub struct Masters {
    urls: Vec<String>,
    /// Total time that each of them has to answer.
    request_timeout: Duration,
}

/// Why a master has not done what it was asked.
#[derive(Debug)]
enum Problem {
    /// The cluster refuses, and a retry does not help.
    Refused(anyhow::Error),
    /// This master cannot do it, but another one may.
    Unsuitable(anyhow::Error),
    /// The master may do it later.
    NotNow(anyhow::Error),
}

/// Marks an error as a refusal by the cluster, which a retry does not change.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0} refuses")]
pub struct Refusal(String);

impl Problem {
    /// Describes the problem with the master at `url`.
    fn at(self, url: &str) -> anyhow::Error {
        match self {
            Problem::Refused(error) => error.context(Refusal(url.to_owned())),
            Problem::Unsuitable(error) => error.context(format!("{url} cannot do it")),
            Problem::NotNow(error) => error.context(format!("{url} does not answer")),
        }
    }
}

type Attempt<T> = Result<T, Problem>;

/// Client certificate and its key, PEM.
pub struct ClientCertificate<'a> {
    pub cert_pem: &'a str,
    pub key_pem: &'a str,
}

impl Masters {
    /// Each master is `https://host:port` or `host:port`.
    pub fn new<'a>(masters: impl IntoIterator<Item = &'a String>) -> Masters {
        let url = |master: &String| format!("https://{}", master.trim_start_matches("https://").trim_end_matches('/'));
        Masters { urls: masters.into_iter().map(url).collect(), request_timeout: REQUEST_TIMEOUT }
    }

    /// Joins with a token. It fetches the authority's certificate over an unverified connection, checks it against the
    /// hash in the token, and sends the request only over a connection that this authority certifies. Returns the
    /// certificate and the answer. A master that does not answer is asked again for the time of `patience`.
    pub async fn join<T: DeserializeOwned>(
        &self,
        token: &JoinToken,
        body: &Value,
        patience: Duration,
    ) -> anyhow::Result<(String, T)> {
        self.first(patience, async |url| {
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

    /// Asks the masters in turn. A refusal counts once every master was asked: the one that refuses may be of another
    /// version or cluster than the others.
    async fn first<T>(&self, patience: Duration, ask: impl AsyncFn(&str) -> Attempt<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let mut problems = Vec::new();
            for url in &self.urls {
                let late = || Problem::NotNow(anyhow::anyhow!("no answer within {:?}", self.request_timeout));
                match timeout(self.request_timeout, ask(url)).await.unwrap_or_else(|_| Err(late())) {
                    Ok(answer) => return Ok(answer),
                    Err(problem) => {
                        let (Problem::Refused(error) | Problem::Unsuitable(error) | Problem::NotNow(error)) = &problem;
                        tracing::info!(url, error = format!("{error:#}"), "a master does not do this now");
                        problems.push((url, problem));
                    }
                }
            }
            if let Some(place) = problems.iter().position(|(_, problem)| matches!(problem, Problem::Refused(_))) {
                let (url, refusal) = problems.swap_remove(place);
                return Err(refusal.at(url));
            }
            let may_change = problems.iter().any(|(_, problem)| matches!(problem, Problem::NotNow(_)));
            if !may_change || Instant::now() >= deadline {
                let texts: Vec<_> =
                    problems.into_iter().map(|(url, problem)| format!("{:#}", problem.at(url))).collect();
                ensure!(!texts.is_empty(), "no master is named");
                bail!(texts.join("; "));
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}

async fn fetch_authority(url: &str, pin: &Pin) -> Attempt<String> {
    let mut config = config(url).map_err(Problem::Unsuitable)?;
    // The server is not verified here; its answer is checked against the hash.
    config.accept_invalid_certs = true;
    let answer = exchange(config, http::Request::get("/quorum/authority").body(Vec::new())).await?;
    let pem = String::from_utf8(answer.into()).map_err(|error| Problem::Unsuitable(error.into()))?;
    check_authority(&pem, pin).map_err(Problem::Unsuitable)?;
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
    let body = serde_json::to_vec(body).map_err(|error| Problem::Refused(error.into()))?;
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
    let trusting = || {
        let mut config = config(url)?;
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).context("the authority")?;
        config.root_cert = Some(vec![authority.to_vec()]);
        anyhow::Ok(config)
    };
    let mut config = trusting().map_err(Problem::Unsuitable)?;
    if let Some(ClientCertificate { cert_pem, key_pem }) = client_certificate {
        config.auth_info.client_certificate_data = Some(STANDARD.encode(cert_pem));
        config.auth_info.client_key_data = Some(STANDARD.encode(key_pem).into());
    }
    let answer = exchange(config, request).await?;
    serde_json::from_slice(&answer)
        .map_err(|error| Problem::Unsuitable(anyhow::Error::new(error).context("its answer is not understood")))
}

/// Sends a request and returns the body of a successful answer.
async fn exchange(config: Config, request: http::Result<http::Request<Vec<u8>>>) -> Attempt<Bytes> {
    let send = async move || {
        let client = Client::try_from(config)?;
        let (head, body) = client.send(request?.map(Body::from)).await?.into_parts();
        anyhow::Ok((head.status, read_bounded(body).await?))
    };
    let (status, body) = send().await.map_err(Problem::NotNow)?;
    if status.is_success() { Ok(body) } else { Err(classify(status, &body)) }
}

async fn read_bounded(body: Body) -> anyhow::Result<Bytes> {
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    Ok(body.map_err(|error| anyhow::anyhow!("its answer cannot be read: {error}"))?.to_bytes())
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

/// Distinguishes what an unsuccessful answer means for the other masters and for a retry.
fn classify(status: StatusCode, body: &[u8]) -> Problem {
    #[derive(serde::Deserialize)]
    struct Status {
        message: String,
    }
    let error = match serde_json::from_slice::<Status>(body) {
        Ok(Status { message }) => anyhow::anyhow!(message),
        Err(_) => anyhow::anyhow!("it answers with {status}, which is not the answer of a master"),
    };
    match status.as_u16() {
        // A master that cannot sign, or whose version does not know the request.
        404 | 405 => Problem::Unsuitable(error),
        429 | 500.. => Problem::NotNow(error),
        400.. => Problem::Refused(error),
        _ => Problem::Unsuitable(error),
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
    use std::cell::RefCell;

    use quorate_pki::Authority;

    use super::*;

    /// Asks masters with these answers; a problem is given by its status. Returns the outcome and the masters that were
    /// asked, in order.
    async fn ask(answers: &[(&str, Option<u16>)], patience: Duration) -> (Result<String, String>, Vec<String>) {
        let urls: Vec<_> = answers.iter().map(|(url, _)| (*url).to_owned()).collect();
        let asked = RefCell::new(Vec::new());
        let masters = Masters { urls, request_timeout: Duration::from_millis(100) };
        let outcome = masters.first(patience, async |url| {
            asked.borrow_mut().push(url.to_owned());
            let answer = answers.iter().find(|(name, _)| *name == url).and_then(|(_, status)| *status);
            match answer {
                None => Ok(url.to_owned()),
                // A master that never answers.
                Some(0) => std::future::pending().await,
                Some(status) => {
                    let body = format!("{{\"message\": \"it says {status}\"}}");
                    Err(classify(StatusCode::from_u16(status).expect("a status"), body.as_bytes()))
                }
            }
        });
        let outcome = outcome.await.map_err(|error| format!("{error:#}"));
        (outcome, asked.into_inner())
    }

    #[tokio::test]
    async fn every_master_is_asked_before_a_refusal_counts() {
        for status in [0, 301, 400, 401, 403, 404, 405, 409, 429, 503] {
            let (outcome, asked) = ask(&[("m1", Some(status)), ("m2", None)], Duration::ZERO).await;
            assert_eq!((outcome.as_deref(), asked.len()), (Ok("m2"), 2), "{status}");
        }
        // A refusal is not repeated, and is shown rather than the masters that cannot be asked.
        let (outcome, asked) = ask(&[("m1", Some(503)), ("m2", Some(403)), ("m3", Some(404))], JOIN_TIMEOUT).await;
        assert_eq!((outcome, asked.len()), (Err("m2 refuses: it says 403".to_owned()), 3));
        let (outcome, asked) = ask(&[("m1", Some(404)), ("m2", Some(405))], JOIN_TIMEOUT).await;
        let problem = outcome.expect_err("none can do it");
        assert!(problem.contains("m1 cannot do it: it says 404; m2 cannot do it"), "{problem}");
        assert_eq!(asked.len(), 2);
        // A master that starts is waited for.
        let (outcome, asked) = ask(&[("m1", Some(404)), ("m2", Some(503))], 2 * RETRY_INTERVAL).await;
        assert!(outcome.expect_err("it does not start").contains("m2 does not answer: it says 503"));
        assert!(asked.len() >= 4, "{asked:?}");
        assert_eq!(ask(&[], JOIN_TIMEOUT).await.0, Err("no master is named".to_owned()));
    }

    #[tokio::test]
    async fn answers_are_bounded() {
        let fits = read_bounded(Body::from(vec![b' '; MAX_ANSWER_BYTES])).await.expect("it fits");
        assert_eq!(fits.len(), MAX_ANSWER_BYTES);
        read_bounded(Body::from(vec![b' '; MAX_ANSWER_BYTES + 1])).await.expect_err("too long");
    }

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
