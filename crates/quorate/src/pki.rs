//! The certificates of a cluster that `quorate up` makes: who is who, and which authority vouches for it.
//!
//! Two authorities: one for API clients, API servers and nodes, and one that signs masters' peer certificates and
//! nothing else, so that no node's or user's certificate opens the door to the log.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// Certificates outlive any cluster that is tried out on one machine; clocks may differ by a day.
const VALID_DAYS: i64 = 3650;

/// A certificate and its key on disk.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    /// Both ends of the peer transport.
    Peer,
}

/// An authority with its key at hand.
pub struct Authority {
    pub cert: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    /// Opens the authority `name` in `dir`, making it when it does not exist.
    pub fn open(dir: &Path, name: &str) -> anyhow::Result<Authority> {
        let pair = pair(dir, name);
        if !pair.cert.exists() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let key = KeyPair::generate()?;
            let mut params = params(&format!("quorate-{name}"), None, Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            // The key first: a certificate without its key would be taken for a complete authority.
            write(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
            write(&pair.cert, params.self_signed(&key)?.pem().as_bytes(), 0o644)?;
        }
        let key = KeyPair::from_pem(&read(&pair.key)?).with_context(|| format!("{}", pair.key.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&read(&pair.cert)?, key)
            .with_context(|| format!("{} is not a usable authority", pair.cert.display()))?;
        Ok(Authority { cert: pair.cert, issuer, dir: dir.to_owned() })
    }

    /// The certificate `file`, made when it does not exist: common name `user`, organization `group`.
    pub fn issue(
        &self,
        file: &str,
        user: &str,
        group: Option<&str>,
        hosts: &[&str],
        usage: Usage,
    ) -> anyhow::Result<Pair> {
        let pair = pair(&self.dir, file);
        if !pair.cert.exists() {
            let key = KeyPair::generate()?;
            let mut params = params(user, group, hosts.iter().map(|&h| h.to_owned()).collect())?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = match usage {
                Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
                Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
                Usage::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            };
            let certificate = params.signed_by(&key, &self.issuer)?;
            write(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
            write(&pair.cert, certificate.pem().as_bytes(), 0o644)?;
        }
        Ok(pair)
    }
}

fn params(user: &str, group: Option<&str>, hosts: Vec<String>) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(VALID_DAYS);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn pair(dir: &Path, name: &str) -> Pair {
    Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_keys_are_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = Authority::open(dir.path(), "ca").expect("a new authority");
        let before = fs::read(&first.cert).expect("its certificate");
        let again = Authority::open(dir.path(), "ca").expect("the same authority");
        assert_eq!(before, fs::read(&again.cert).expect("its certificate"));

        let pair = again.issue("m1", "m1", None, &["localhost", "127.0.0.1"], Usage::Server).expect("a certificate");
        let mode = fs::metadata(&pair.key).expect("its key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
