//! Certificates of an agent and its clients.

use std::sync::Arc;

use quorate_pki::LiveIdentity;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate authority that issues the certificates of an agent and its clients.
pub struct Pki {
    pub ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both in PEM.
pub struct TlsIdentity {
    pub cert_pem: String,
    pub key_pem: String,
}

impl TlsIdentity {
    pub(super) fn live(&self) -> Arc<LiveIdentity> {
        LiveIdentity::from_pem(self.cert_pem.as_bytes(), self.key_pem.as_bytes()).expect("the key fits the certificate")
    }
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("an authority");
        Pki { ca_pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn identity(&self, name: &str, group: &str) -> TlsIdentity {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        TlsIdentity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}
