//! Certificates for one run.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate and its key on disk.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Certificate authority. Its certificates are valid at any time that a moved clock may show.
pub struct Authority {
    pub cert: PathBuf,
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// # Errors
    /// When a file cannot be written.
    pub fn create(directory: &Path, name: &str) -> anyhow::Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = params(name, None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let cert = directory.join(format!("{name}.crt"));
        fs::write(&cert, params.self_signed(&key)?.pem())?;
        Ok(Authority { cert, directory: directory.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Issues a certificate for the client and the server of a connection to this machine.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue(&self, file: &str, user: &str, group: Option<&str>) -> anyhow::Result<Pair> {
        let key = KeyPair::generate()?;
        let mut params = params(user, group, &["localhost", "127.0.0.1"])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pair =
            Pair { cert: self.directory.join(format!("{file}.crt")), key: self.directory.join(format!("{file}.key")) };
        fs::write(&pair.key, key.serialize_pem())?;
        fs::write(&pair.cert, params.signed_by(&key, &self.issuer)?.pem())?;
        Ok(pair)
    }
}

fn params(user: &str, group: Option<&str>, hosts: &[&str]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
