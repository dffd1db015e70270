//! TLS for the accept loop: rustls with ring, certificates read from files and read again when they change.
//!
//! Owns loading and swapping certificates; connections that are open keep theirs. Where streams are accepted is
//! [`crate::serve()`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// A certificate chain and its key, from PEM files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    certificate: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Current {
    certificate_path: PathBuf,
    key_path: PathBuf,
    loaded: RwLock<Loaded>,
}

#[derive(Debug, Clone)]
struct Loaded {
    key: Arc<CertifiedKey>,
    stamps: [Option<SystemTime>; 2],
}

/// Why the files are no good; its text names the file, never what is in it.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    what: String,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for TlsError {}

impl Tls {
    /// Reads the chain and the key.
    pub fn from_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        let (certificate_path, key_path) = (certificate.as_ref().to_owned(), key.as_ref().to_owned());
        let loaded = RwLock::new(load(&certificate_path, &key_path)?);
        let certificate = Arc::new(Current { certificate_path, key_path, loaded });
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&certificate));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { certificate, config: Arc::new(config) })
    }

    /// Reads the files again if either was written since; new connections get what they hold now. On an error
    /// the old certificate stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let current = &self.certificate;
        if stamps(&current.certificate_path, &current.key_path) == current.loaded.read().stamps {
            return Ok(false);
        }
        let loaded = load(&current.certificate_path, &current.key_path)?;
        *current.loaded.write() = loaded;
        Ok(true)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.loaded.read().key))
    }
}

fn load(certificate_path: &Path, key_path: &Path) -> Result<Loaded, TlsError> {
    let error = |path: &Path, what: &dyn std::fmt::Display| TlsError {
        path: path.to_owned(),
        what: what.to_string(),
    };
    // Taken before reading: a write in between is noticed at the next look, not missed.
    let stamps = stamps(certificate_path, key_path);
    let chain = CertificateDer::pem_file_iter(certificate_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|problem| error(certificate_path, &problem))?;
    if chain.is_empty() {
        return Err(error(certificate_path, &"holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(|problem| error(key_path, &problem))?;
    let key = CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|problem| error(key_path, &format_args!("does not fit the certificate ({problem})")))?;
    Ok(Loaded { key: Arc::new(key), stamps })
}

fn stamps(certificate_path: &Path, key_path: &Path) -> [Option<SystemTime>; 2] {
    [certificate_path, key_path].map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
}
