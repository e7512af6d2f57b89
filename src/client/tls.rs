//! The TLS configuration: the roots, and the certificate of the client. Both come from files that may change at run time.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroize;

use crate::file::{ReloadableFile, Settle};

/// The file of the roots that are trusted in place of the built-in ones, if there is one.
pub(crate) type Roots = Option<ReloadableFile<RootCertStore>>;

/// The certificate of the client and its key, each in a file of its own, for a gateway that asks for one.
pub(crate) struct Identity {
    chain: ReloadableFile<Chain>,
    key: ReloadableFile<Key>,
    /// The last certificate and key that belonged together. Between the changes of the two files they do not.
    good: ArcSwapOption<CertifiedKey>,
}

/// A certificate, followed by those between it and its root.
pub(crate) type Chain = Vec<CertificateDer<'static>>;
/// A private key. It cannot be printed.
pub(crate) type Key = Arc<dyn SigningKey>;

impl Identity {
    /// An identity from the two opened files.
    ///
    /// # Errors
    /// Fails if a file is missing, or the key is not that of the certificate.
    pub(crate) fn new(
        chain: ReloadableFile<Chain>,
        key: ReloadableFile<Key>,
    ) -> Result<Self, String> {
        let identity = Self {
            chain,
            key,
            good: ArcSwapOption::empty(),
        };
        identity.put_together()?;
        Ok(identity)
    }

    fn put_together(&self) -> Result<(), String> {
        let (Some(chain), Some(key)) = (self.chain.get(), self.key.get()) else {
            return Err("it is missing".to_owned());
        };
        let identity = CertifiedKey::new(chain.to_vec(), Arc::clone(&key));
        identity
            .keys_match()
            .map_err(|_| "the key is not that of the certificate in gateway.client_cert_file")?;
        self.good.store(Some(Arc::new(identity)));
        Ok(())
    }

    /// Reads both files again. Returns true if there is a new certificate or key.
    fn reload(&self, settle: Settle) -> bool {
        let [chain, key] = [self.chain.reload(settle), self.key.reload(settle)];
        if !chain && !key {
            return false;
        }
        match self.put_together() {
            Ok(()) => true,
            Err(why) => {
                self.key.failures.inc();
                tracing::warn!(
                    why,
                    "client certificate not changed: the last good one, with its key, stays in use"
                );
                false
            }
        }
    }
}

/// Two configurations that differ in the size of the ClientHello alone.
pub(super) struct Tls {
    /// With a post-quantum key share. Its ClientHello does not fit into one packet.
    pub(super) full: Arc<ClientConfig>,
    /// Its ClientHello fits into one packet: some firewalls drop one that does not.
    pub(super) small: Arc<ClientConfig>,
}

/// The files of one side's TLS.
pub(crate) struct Files {
    roots: Roots,
    identity: Option<Identity>,
    /// Counts the reads of any of the files that found nothing usable.
    pub(super) failures: Counter,
}

impl Files {
    /// The TLS files of one side, already opened.
    pub(super) fn new(mut roots: Roots, mut identity: Option<Identity>) -> Self {
        let failures = Counter::default();
        if let Some(roots) = &mut roots {
            roots.failures = failures.clone();
        }
        if let Some(Identity { chain, key, .. }) = &mut identity {
            (chain.failures, key.failures) = (failures.clone(), failures.clone());
        }
        Self {
            roots,
            identity,
            failures,
        }
    }

    /// Reads each file again. Returns true if one has new content.
    pub(super) fn reload(&self, settle: Settle) -> bool {
        let roots = self
            .roots
            .as_ref()
            .is_some_and(|roots| roots.reload(settle));
        let identity = self
            .identity
            .as_ref()
            .is_some_and(|identity| identity.reload(settle));
        roots || identity
    }

    /// Returns the configuration as the files have it now. It logs no session keys: rustls does so only on request.
    ///
    /// # Errors
    /// Says why the files cannot be used.
    pub(super) fn tls(&self) -> Result<Tls, String> {
        let roots = match &self.roots {
            None => Arc::new(RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            }),
            Some(file) => file.get().ok_or("there are no roots")?,
        };
        let full = self.config(aws_lc_rs::default_provider(), &roots)?;
        let kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        let mut small = self.config(
            CryptoProvider {
                kx_groups,
                ..aws_lc_rs::default_provider()
            },
            &roots,
        )?;
        // A session ticket may be as large as the key share that was left out.
        small.resumption = Resumption::disabled();
        Ok(Tls {
            full: Arc::new(full),
            small: Arc::new(small),
        })
    }

    fn config(
        &self,
        provider: CryptoProvider,
        roots: &Arc<RootCertStore>,
    ) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots.clone());
        let Some(identity) = self
            .identity
            .as_ref()
            .and_then(|identity| identity.good.load_full())
        else {
            return Ok(builder.with_no_client_auth());
        };
        let identity: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity));
        Ok(builder.with_client_cert_resolver(identity))
    }
}

/// Parses root certificates in PEM.
///
/// # Errors
/// Says what is wrong, without quoting the content: it may be a key that was named by mistake.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
    }
    Ok(roots)
}

/// Parses a certificate in PEM, followed by those between it and its root.
///
/// # Errors
/// Says what is wrong, without quoting the content.
pub(crate) fn chain(pem: &[u8]) -> Result<Chain, String> {
    let chain: Result<Chain, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err("there is no certificate in it (PEM is expected)".to_owned())
        }
        Ok(chain) => Ok(chain),
        Err(_) => Err("it is not well-formed PEM".to_owned()),
    }
}

/// Parses a private key in PEM: PKCS #8, PKCS #1 or SEC 1.
///
/// # Errors
/// Says what is wrong, without quoting the content.
pub(crate) fn key(pem: &[u8]) -> Result<Key, String> {
    let mut der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "there is no private key in it (PEM without a passphrase is expected)"
        }
        _ => "it is not well-formed PEM",
    })?;
    let key = aws_lc_rs::sign::any_supported_type(&der);
    der.zeroize();
    key.map_err(|_| {
        "its key is of a kind that cannot be used (RSA, ECDSA or Ed25519 is expected)".to_owned()
    })
}
