//! The authorities of a cluster, and the certificates that they sign.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use time::OffsetDateTime;

use crate::error::PkiError;
use crate::files::{Pair, read, write_private, write_public};
use crate::host::canonical_host;
use crate::token::Pin;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Validity periods of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    pub certificate: Duration,
    pub authority: Duration,
}

impl Default for Lifetimes {
    /// One year for certificates, ten for authorities.
    fn default() -> Self {
        Lifetimes { certificate: 365 * DAY, authority: 3650 * DAY }
    }
}

/// Permitted use of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    /// Client and server of the peer transport.
    Peer,
}

/// The holder of a certificate: common name `user`, organization `group`, and the hosts that it may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub user: String,
    pub group: Option<String>,
    pub hosts: Vec<String>,
    pub usage: Usage,
}

/// A certificate authority with its key.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    pin: Pin,
}

impl Authority {
    /// Creates a new authority.
    ///
    /// # Errors
    /// Fails when the key or certificate cannot be created.
    pub fn create(name: &str, lifetime: Duration) -> Result<Authority, PkiError> {
        let make = |source| PkiError::Make { what: format!("the authority {name}"), source };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = params(&format!("quorate-{name}"), None, &[], lifetime).map_err(make)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(make)?;
        Authority::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// # Errors
    /// Fails when the certificate and key are not a usable authority.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Authority, PkiError> {
        let unusable = |source| PkiError::Unusable { what: "the authority".to_owned(), source };
        let key = KeyPair::from_pem(key_pem).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(unusable)?;
        let pin = Pin::of_certificate(certificate_pem.as_bytes())?;
        Ok(Authority { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned(), issuer, pin })
    }

    /// Reads the authority `name` in `dir`.
    ///
    /// # Errors
    /// Fails when one of its files cannot be read or used.
    pub fn load(dir: &Path, name: &str) -> Result<Authority, PkiError> {
        let pair = Pair::new(dir, name);
        Authority::from_pem(&read(&pair.cert)?, &read(&pair.key)?)
    }

    /// Reads the authority `name` in `dir`, or creates it when it does not exist.
    ///
    /// # Errors
    /// Fails like [`Authority::load`], and when the authority cannot be written.
    pub fn open(dir: &Path, name: &str, lifetime: Duration) -> Result<Authority, PkiError> {
        if Pair::new(dir, name).cert.exists() {
            return Authority::load(dir, name);
        }
        let authority = Authority::create(name, lifetime)?;
        authority.save(dir, name)?;
        Ok(authority)
    }

    /// Writes the authority's two files.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), PkiError> {
        let pair = Pair::new(dir, name);
        // The key is written first, because a certificate without its key would look like a complete authority.
        write_private(&pair.key, self.key_pem.as_bytes())?;
        write_public(&pair.cert, self.certificate_pem.as_bytes())
    }

    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Returns the key hash by which a joining machine recognizes this authority.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Signs a certificate for a key and returns it as PEM.
    ///
    /// # Errors
    /// Fails when a host is not a valid name in a certificate.
    pub fn sign(
        &self,
        public_key: &impl PublicKeyData,
        subject: &Subject,
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let make = |source| PkiError::Make { what: format!("the certificate of {}", subject.user), source };
        let mut params = params(&subject.user, subject.group.as_deref(), &subject.hosts, lifetime).map_err(make)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match subject.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(params.signed_by(public_key, &self.issuer).map_err(make)?.pem())
    }

    /// Writes a new certificate to `pair`, for the existing key or a new one.
    ///
    /// # Errors
    /// Fails when the certificate cannot be created or written.
    pub fn issue(&self, pair: &Pair, subject: &Subject, lifetime: Duration) -> Result<(), PkiError> {
        let key = pair.key()?;
        let certificate = self.sign(&key, subject, lifetime)?;
        write_public(&pair.cert, certificate.as_bytes())
    }
}

/// Both authorities of a cluster, and the validity periods that they use.
pub struct Authorities {
    /// Authority of API clients, API servers and nodes.
    pub cluster: Authority,
    /// Authority of the masters' peer certificates.
    pub peers: Authority,
    pub lifetimes: Lifetimes,
}

impl Authorities {
    /// File name of the cluster's authority, without its extension.
    pub const CLUSTER: &'static str = "ca";
    /// File name of the peers' authority, without its extension.
    pub const PEERS: &'static str = "peer-ca";

    /// Returns whether `dir` contains both authorities.
    #[must_use]
    pub fn exist(dir: &Path) -> bool {
        [Self::CLUSTER, Self::PEERS].iter().all(|name| {
            let pair = Pair::new(dir, name);
            pair.cert.exists() && pair.key.exists()
        })
    }

    /// # Errors
    /// Fails like [`Authority::load`].
    pub fn load(dir: &Path, lifetimes: Lifetimes) -> Result<Authorities, PkiError> {
        Ok(Authorities {
            cluster: Authority::load(dir, Self::CLUSTER)?,
            peers: Authority::load(dir, Self::PEERS)?,
            lifetimes,
        })
    }

    /// # Errors
    /// Fails like [`Authority::open`].
    pub fn open(dir: &Path, lifetimes: Lifetimes) -> Result<Authorities, PkiError> {
        Ok(Authorities {
            cluster: Authority::open(dir, Self::CLUSTER, lifetimes.authority)?,
            peers: Authority::open(dir, Self::PEERS, lifetimes.authority)?,
            lifetimes,
        })
    }

    /// # Errors
    /// Fails like [`Authority::save`].
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        // The cluster's certificate is the last of the four files, so its presence means that the set is complete.
        self.peers.save(dir, Self::PEERS)?;
        self.cluster.save(dir, Self::CLUSTER)
    }
}

fn params(
    user: &str,
    group: Option<&str>,
    hosts: &[String],
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let hosts: Vec<_> = hosts.iter().map(|host| canonical_host(host)).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let now = OffsetDateTime::now_utc();
    // The start is backdated, because clocks may differ by a day. Short-lived certificates are backdated by a tenth of
    // their lifetime only, so that most of it remains.
    params.not_before = now - DAY.min(lifetime / 10);
    params.not_after = now + lifetime;
    params.use_authority_key_identifier_extension = true;
    // A machine's certificates share a key, and rcgen would derive the same serial number from it.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::details::details;

    fn server(hosts: &[&str]) -> Subject {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        Subject { user: "m1".to_owned(), group: None, hosts, usage: Usage::Server }
    }

    #[test]
    fn an_authority_is_created_once_and_keys_are_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lifetimes = Lifetimes::default();
        let first = Authority::open(dir.path(), "ca", lifetimes.authority).expect("a new authority");
        let again = Authority::open(dir.path(), "ca", lifetimes.authority).expect("the same authority");
        assert_eq!(first.certificate_pem, again.certificate_pem);
        assert_eq!(first.pin(), again.pin());

        let pair = Pair::new(dir.path(), "m1");
        again.issue(&pair, &server(&["localhost", "127.0.0.1"]), DAY).expect("a certificate");
        let mode = fs::metadata(&pair.key).expect("its key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_renewed_certificate_keeps_its_key_and_gets_a_new_serial_number() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ca = Authority::create("ca", DAY).expect("an authority");
        let pair = Pair::new(dir.path(), "m1");
        ca.issue(&pair, &server(&["localhost"]), DAY).expect("a certificate");
        let (key, before) = (read(&pair.key).expect("a key"), read(&pair.cert).expect("a certificate"));
        ca.issue(&pair, &server(&["localhost", "10.0.0.1"]), DAY).expect("a certificate");
        assert_eq!(read(&pair.key).expect("a key"), key);
        let after = read(&pair.cert).expect("a certificate");
        let [before, after] = [before, after].map(|pem| details(pem.as_bytes()).expect("a certificate"));
        assert_ne!(before.serial, after.serial);
        assert_eq!(before.key_pin, after.key_pin);
        assert_eq!(after.hosts, ["localhost", "10.0.0.1"]);
        // Another form of the same hosts is no reason for another certificate.
        ca.issue(&pair, &server(&["[FD00:0::1]", "API.Example"]), DAY).expect("a certificate");
        let shown = details(read(&pair.cert).expect("a certificate").as_bytes()).expect("a certificate");
        assert_eq!(shown.hosts, ["fd00::1", "api.example"]);
        assert!(shown.covers(&["FD00::1".to_owned(), "[fd00::1]".to_owned(), "api.example.".to_owned()]));
    }
}
