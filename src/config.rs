//! Every setting: its unit, its default, its name in the environment.
//!
//! Settings come, later ones winning, from the defaults here, a TOML file (`--config`), and the environment
//! (`STATUSLEDGER_` and the name in capitals; a list as TOML, `["10.0.0.0/8"]`). A secret is named by the file that
//! holds it. What the command line says wins over all of them.

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The settings of a node.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The instance's name: a host name, fixed at the first start. Default `localhost`.
    pub instance: String,
    /// The node's own directory: key-encryption key, heads seen, the embedded cluster. Default `statusledger-data`.
    pub data_dir: PathBuf,
    /// The address to listen on. Default `127.0.0.1`.
    pub listen: std::net::IpAddr,
    /// The port to listen on; 0 takes a free one. Default 8480.
    pub port: u16,
    /// The service's database address; none means the embedded cluster.
    pub database_url: Option<String>,
    /// The worker's database address (see docs/operations.md). Needed with `database_url`.
    pub worker_database_url: Option<String>,
    /// The owner's database address; only `migrate` uses it.
    pub owner_database_url: Option<String>,
    /// Database connections for the service and, apart, for the worker; half as many more only append. Default 16.
    pub database_connections: u32,
    /// Whether the addresses lead to a pooler that gives server connections away with every transaction (PgBouncer in
    /// transaction mode). Default false.
    pub database_pooled: bool,
    /// The file of the key-encryption key; made at the first start. Default `<data_dir>/key-encryption-key`.
    pub key_encryption_key_file: Option<PathBuf>,
    /// Files of further key-encryption keys that the node holds while the key is being replaced. Default none.
    pub key_encryption_key_other_files: Vec<PathBuf>,
    /// AWS KMS, where it keeps the key-encryption key.
    pub kms: KmsSettings,
    /// Where Postgres's programs are, if not where they are looked for.
    pub postgres_bin: Option<PathBuf>,
    /// The address under which people reach the instance (`https://status.example.com`): cookies and the addresses that
    /// identity providers send people back to depend on it. Default none: whatever they use, which serves for loopback.
    pub public_url: Option<String>,
    /// Networks of the proxies in front (CIDR), which are believed when they say (`X-Forwarded-For`) for whom they ask.
    /// Default none.
    pub trusted_proxies: Vec<String>,
    /// How people sign in and keys are kept.
    pub access: AccessSettings,
    /// How often whoever asks may ask.
    pub api: ApiSettings,
    /// What connections are bounded by.
    pub http: HttpSettings,
    /// How deliveries are made.
    pub delivery: DeliverySettings,
    /// How stores are polled.
    pub polling: PollingSettings,
    /// How long what stands beside the ledgers is kept.
    pub retention: RetentionSettings,
    /// How what is stored is verified again, all the time.
    pub self_audit: SelfAuditSettings,
}

impl std::fmt::Debug for Settings {
    /// All but the addresses of databases, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = serde_json::to_value(self).unwrap_or_default();
        if let Some(members) = all.as_object_mut() {
            members.retain(|name, _| !name.ends_with("database_url"));
        }
        write!(f, "Settings {all}")
    }
}

/// How people sign in and keys are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// Hours after which a session that nobody uses ends. Default 24.
    pub session_idle_h: f64,
    /// Hours after which a session ends in any case. Default 168, a week.
    pub session_longest_h: f64,
    /// Hours between asking for a workspace's deletion and its end. Default 168, a week.
    pub deletion_waits_h: f64,
    /// Requests of the sign-in that one address (an IPv6 network of 64 bits) may make in a minute; a sign-in takes two
    /// or three. Default 30.
    pub sign_in_requests_per_minute: u32,
    /// Sign-ins of one identity, passkey or link in a minute. Default 10.
    pub sign_ins_per_identity_per_minute: u32,
    /// Where people sign in besides with passkeys and one-time links. Default none.
    pub providers: Vec<ProviderSettings>,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            session_idle_h: 24.0,
            session_longest_h: 168.0,
            deletion_waits_h: 168.0,
            sign_in_requests_per_minute: 30,
            sign_ins_per_identity_per_minute: 10,
            providers: Vec::new(),
        }
    }
}

/// How long what stands beside the ledgers is kept, in days: 30 to 36,500, or for ever. The ledgers' entries are never
/// deleted: each is part of what the next one proves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Days after which attempts are deleted, and with them what receivers answered. Default: never.
    pub attempts_days: Option<u32>,
    /// Days after which deliveries that are settled are deleted, with their attempts. Default: never.
    pub deliveries_days: Option<u32>,
    /// Days after which the openings of entries are destroyed: sealed names, addresses and payloads can then be read by
    /// nobody any more. Default: never.
    pub openings_days: Option<u32>,
}

/// How the node verifies what is stored, in the background and all the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfAuditSettings {
    /// Entries that a node verifies again in a second at most (0 to 1,000,000); 0 switches it off. Default 500.
    pub entries_per_second: u32,
    /// Seconds between the end of a pass over a ledger and the beginning of the next (0.01 to 2,678,400, a month).
    /// Default 3,600.
    pub interval_s: f64,
}

impl Default for SelfAuditSettings {
    fn default() -> Self {
        Self { entries_per_second: 500, interval_s: 3600.0 }
    }
}

/// AWS KMS as the keeper of the key-encryption key. Credentials come by AWS's own ways: the environment, the shared
/// configuration, a web identity token, the container's or the machine's role.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KmsSettings {
    /// The KMS key that wraps and unwraps: ARN, id or alias. None means that KMS is not used.
    pub key: Option<String>,
    /// Further KMS keys that may unwrap what they wrapped before, while one replaces another. Default none.
    pub other_keys: Vec<String>,
    /// The region. Default: that of the key's ARN, else AWS's own ways (`AWS_REGION`, the shared configuration, the
    /// machine's).
    pub region: Option<String>,
    /// Another endpoint than the region's own (a VPC endpoint): `https`, or `http` on a loopback address.
    pub endpoint: Option<String>,
}

/// How often each key and each session may ask a node. Inbound events are not counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// Requests a minute (1 to 1,000,000). Default 6,000.
    pub requests_per_minute: u32,
    /// Requests at once, before the rate counts (1 to 1,000,000). Default 1,000.
    pub burst: u32,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self { requests_per_minute: 6000, burst: 1000 }
    }
}

/// What connections to a node are bounded by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Connections at once (1 to 1,000,000); fewer where the system allows fewer open files. Default 4,096.
    pub connections: u32,
    /// Seconds that the head of a request may take, and that a connection may be silent between two requests (0.1 to
    /// 3,600). Default 65, more than proxies keep a connection that they do not use.
    pub head_timeout_s: f64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { connections: 4096, head_timeout_s: 65.0 }
    }
}

/// What kind of identity provider it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// Any issuer of OpenID Connect.
    Oidc,
    /// GitHub, or a GitHub Enterprise server.
    Github,
}

/// An identity provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Its id here: 1 to 40 of a-z, 0-9 and '-'. It is part of the address that people are sent back to:
    /// `<public_url>/sign-in/callback/<id>`.
    pub id: String,
    /// `oidc` or `github`.
    pub kind: ProviderKind,
    /// What people read on the button.
    pub name: String,
    /// The issuer's address, exactly as its discovery document has it. Needed with `oidc`.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Who we are there.
    pub client_id: String,
    /// The file of the client's secret; none for a public client, which `github` does not have.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// Scopes to ask for besides `openid`. Default `email` and `profile`.
    #[serde(default = "email_and_profile")]
    pub scopes: Vec<String>,
    /// Only `github`: the server's address. Default `https://github.com`.
    #[serde(default)]
    pub url: Option<String>,
    /// Only `github`: its API's address. Default `https://api.github.com`.
    #[serde(default)]
    pub api_url: Option<String>,
}

fn email_and_profile() -> Vec<String> {
    vec!["email".into(), "profile".into()]
}

impl ProviderSettings {
    /// What is wrong with it, if anything is.
    fn fault(&self) -> Option<&'static str> {
        let id = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if self.id.is_empty() || self.id.len() > 40 || !self.id.bytes().all(id) {
            return Some("an id has 1 to 40 of a-z, 0-9 and '-'");
        }
        if self.name.trim().is_empty() || self.name.chars().count() > 60 {
            return Some("a name has 1 to 60 characters");
        }
        let addresses = [&self.issuer, &self.url, &self.api_url];
        if !addresses.into_iter().flatten().all(|address| is_private(address)) {
            return Some("addresses are https://, or http:// on this machine, without a query");
        }
        match self.kind {
            ProviderKind::Oidc if self.issuer.is_none() => Some("oidc needs an issuer"),
            ProviderKind::Github if self.client_secret_file.is_none() => {
                Some("github needs a client_secret_file")
            }
            _ => None,
        }
    }
}

/// Whether what is said to that address is heard by nobody on the way: https, or this machine itself.
fn is_private(address: &str) -> bool {
    let Ok(url) = url::Url::parse(address) else { return false };
    let here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return false,
    };
    (url.scheme() == "https" || url.scheme() == "http" && here)
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
}

/// How deliveries are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverySettings {
    /// Seconds from one attempt to the next; the first is 0. Default: the ten steps of Standard Webhooks.
    pub schedule_s: Vec<f64>,
    /// Part of a step that is drawn at random and added, 0 to 1. Default 0.1.
    pub jitter: f64,
    /// Deadline of an attempt over connect, TLS, headers and body, in seconds. Default 20.
    pub deadline_s: f64,
    /// Seconds of nothing but failures after which a destination is disabled. Default five days.
    pub disable_after_s: f64,
    /// Failures in a row after which a destination is only probed, one attempt at a time. Default 8.
    pub breaker_failures: u32,
    /// Longest wait that a `Retry-After` may ask for, in seconds. Default a day.
    pub retry_after_cap_s: f64,
    /// Whether `http` addresses are allowed. Default false.
    pub allow_http: bool,
    /// Networks that are reachable though the guard denies them (CIDR). Default none.
    pub allow_networks: Vec<String>,
    /// A PEM file of certificate authorities that are trusted besides the system's.
    pub extra_roots: Option<PathBuf>,
}

/// How stores are polled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PollingSettings {
    /// Seconds after which what is in review, processing or rolling out is asked for again, where the key's budget
    /// covers it. Default 50, so that it is seen within a minute.
    pub interval_s: f64,
    /// Seconds after which what is settled is asked for again. Default 3300, so that it is seen within the hour.
    pub settled_s: f64,
    /// Whether a source may name a store address of its own, also over `http` (for simulators). Default false.
    pub allow_other_hosts: bool,
    /// How many times as fast as ours the clocks of the stores run (1 to 1000): a key's limit is about an hour that is
    /// so much shorter, and so is the poller's own pace. Other than 1 only with `allow_other_hosts`, for simulators
    /// that show a day in minutes. Default 1.
    pub time_scale: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: "localhost".into(),
            data_dir: "statusledger-data".into(),
            listen: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 8480,
            database_url: None,
            worker_database_url: None,
            owner_database_url: None,
            database_connections: 16,
            database_pooled: false,
            key_encryption_key_file: None,
            key_encryption_key_other_files: Vec::new(),
            kms: KmsSettings::default(),
            postgres_bin: None,
            public_url: None,
            trusted_proxies: Vec::new(),
            access: AccessSettings::default(),
            api: ApiSettings::default(),
            http: HttpSettings::default(),
            delivery: DeliverySettings::default(),
            polling: PollingSettings::default(),
            retention: RetentionSettings::default(),
            self_audit: SelfAuditSettings::default(),
        }
    }
}

impl Default for DeliverySettings {
    fn default() -> Self {
        const HOUR_S: f64 = 3600.0;
        Self {
            schedule_s: vec![
                0.0,
                5.0,
                300.0,
                1800.0,
                2.0 * HOUR_S,
                5.0 * HOUR_S,
                10.0 * HOUR_S,
                14.0 * HOUR_S,
                20.0 * HOUR_S,
                24.0 * HOUR_S,
            ],
            jitter: 0.1,
            deadline_s: 20.0,
            disable_after_s: 5.0 * 24.0 * HOUR_S,
            breaker_failures: 8,
            retry_after_cap_s: 24.0 * HOUR_S,
            allow_http: false,
            allow_networks: Vec::new(),
            extra_roots: None,
        }
    }
}

impl PollingSettings {
    /// The interval of hot polls.
    #[must_use]
    pub fn hot(&self) -> Duration {
        Duration::from_secs_f64(self.interval_s)
    }

    /// The interval of settled polls.
    #[must_use]
    pub fn settled(&self) -> Duration {
        Duration::from_secs_f64(self.settled_s.max(self.interval_s))
    }

    /// The longest wait of a source that fails and whose store does not say when to come back: 18 hot intervals, 15 minutes
    /// where those are longer, and never less than one.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        (self.hot() * 18).min(Duration::from_secs(900)).max(self.hot())
    }

    /// A time of the stores' clocks in ours: as it is, but for a `time_scale`.
    #[must_use]
    pub fn scaled(&self, time: Duration) -> Duration {
        if self.time_scale > 1.0 { time.div_f64(self.time_scale) } else { time }
    }
}

impl Default for PollingSettings {
    fn default() -> Self {
        Self { interval_s: 50.0, settled_s: 3300.0, allow_other_hosts: false, time_scale: 1.0 }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a variable that does not read as what it sets.
    // Figment names its profile before each key.
    #[error("the settings cannot be read: {}", .0.to_string().replace("\"default.", "\""))]
    Unreadable(#[from] Box<figment::Error>),
    /// A value outside what it can mean.
    #[error("the setting {name} is wrong: {why}")]
    Invalid {
        /// The setting, with dots.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Settings {
    /// Reads the defaults, then `file`, then the environment.
    ///
    /// # Errors
    /// If a source does not parse, names a setting that does not exist, or a value is out of range.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let settings: Self = figment
            .merge(
                Env::prefixed("STATUSLEDGER_")
                    .ignore(&["key_encryption_key", "shared", "log", "config"])
                    // How commands find an instance (`cli::remote`).
                    .ignore(&["url", "token", "token_file", "workspace"])
                    .split("__"),
            )
            .extract()
            .map_err(Box::new)?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |name, why: &str| Err(Error::Invalid { name, why: why.into() });
        let name_ok = !self.instance.is_empty()
            && self.instance.len() <= 253
            && self
                .instance
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b));
        if !name_ok {
            return invalid("instance", "a host name has 1 to 253 of a-z, 0-9, '.' and '-'");
        }
        if let Some(url) = &self.public_url {
            let origin = url::Url::parse(url).ok().map(|parsed| parsed.origin().ascii_serialization());
            if origin.as_deref() != Some(url.as_str()) || !url.starts_with("http") {
                return invalid(
                    "public_url",
                    "it has to be https:// and a host, without a path or a slash at the end",
                );
            }
            // Cookies would go in clear, and without `Secure`.
            if !is_private(url) {
                return invalid(
                    "public_url",
                    "it has to begin with https://; http:// does for this machine only (localhost, 127.0.0.1)",
                );
            }
        }
        let a = &self.access;
        if !(0.01..=8760.0).contains(&a.session_idle_h) || !(0.01..=8760.0).contains(&a.session_longest_h) {
            return invalid("access", "session_idle_h and session_longest_h are 0.01 to 8760 hours");
        }
        if !(0.0..=8760.0).contains(&a.deletion_waits_h) {
            return invalid("access.deletion_waits_h", "0 to 8760 hours");
        }
        self.kms.check()?;
        let counts = 1..=1_000_000;
        if !counts.contains(&self.api.requests_per_minute) || !counts.contains(&self.api.burst) {
            return invalid("api", "requests_per_minute and burst are 1 to 1,000,000");
        }
        if !counts.contains(&self.http.connections) {
            return invalid("http.connections", "1 to 1,000,000");
        }
        if !(0.1..=3600.0).contains(&self.http.head_timeout_s) {
            return invalid("http.head_timeout_s", "0.1 to 3600 seconds");
        }
        let limits = [a.sign_in_requests_per_minute, a.sign_ins_per_identity_per_minute];
        if limits.iter().any(|n| !(1..=100_000).contains(n)) {
            return invalid("access", "sign-ins per minute are 1 to 100,000");
        }
        for (n, provider) in a.providers.iter().enumerate() {
            if let Some(fault) = provider.fault() {
                return invalid("access.providers", &format!("{}: {fault}", provider.id));
            }
            if a.providers[..n].iter().any(|other| other.id == provider.id) {
                return invalid("access.providers", &format!("there are two of the id {}", provider.id));
            }
        }
        let r = &self.retention;
        let days = [r.attempts_days, r.deliveries_days, r.openings_days];
        if days.into_iter().flatten().any(|days| !(30..=36_500).contains(&days)) {
            return invalid("retention", "attempts_days, deliveries_days and openings_days are 30 to 36,500");
        }
        if self.self_audit.entries_per_second > 1_000_000 {
            return invalid("self_audit.entries_per_second", "0 to 1,000,000");
        }
        if !(0.01..=2_678_400.0).contains(&self.self_audit.interval_s) {
            return invalid("self_audit.interval_s", "0.01 seconds to 31 days");
        }
        let d = &self.delivery;
        if d.schedule_s.is_empty()
            || d.schedule_s.len() > 100
            || d.schedule_s.iter().any(|s| !(0.0..=1e7).contains(s))
        {
            return invalid("delivery.schedule_s", "1 to 100 waits of 0 to 10,000,000 seconds are needed");
        }
        if !(0.0..=1.0).contains(&d.jitter) {
            return invalid("delivery.jitter", "it is a part, 0 to 1");
        }
        if !(0.01..=300.0).contains(&d.deadline_s) {
            return invalid("delivery.deadline_s", "0.01 to 300 seconds");
        }
        if !(0.0..=1e9).contains(&d.disable_after_s) || !(0.0..=1e7).contains(&d.retry_after_cap_s) {
            return invalid("delivery", "disable_after_s and retry_after_cap_s are seconds, not negative");
        }
        if !(0.01..=86_400.0).contains(&self.polling.interval_s) {
            return invalid("polling.interval_s", "0.01 seconds to a day");
        }
        if !(0.01..=86_400.0).contains(&self.polling.settled_s) {
            return invalid("polling.settled_s", "0.01 seconds to a day");
        }
        if !(1.0..=1000.0).contains(&self.polling.time_scale) {
            return invalid("polling.time_scale", "1 to 1000");
        }
        // A real store's hour is an hour: another would spend its limit many times over.
        if self.polling.time_scale > 1.0 && !self.polling.allow_other_hosts {
            return invalid("polling.time_scale", "it is for simulators, with polling.allow_other_hosts");
        }
        if !(2..=1000).contains(&self.database_connections) {
            return invalid("database_connections", "2 to 1000");
        }
        Ok(())
    }

    /// Where the key-encryption key lies.
    #[must_use]
    pub fn key_encryption_key_path(&self) -> PathBuf {
        self.key_encryption_key_file.clone().unwrap_or_else(|| self.data_dir.join("key-encryption-key"))
    }
}

impl KmsSettings {
    fn check(&self) -> Result<(), Error> {
        let invalid = |name, why: &str| Err(Error::Invalid { name, why: why.into() });
        let key_ok = |key: &str| (1..=2048).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        match &self.key {
            None if self.region.is_some() || self.endpoint.is_some() || !self.other_keys.is_empty() => {
                return invalid("kms.key", "the other settings of kms need it");
            }
            Some(key) if !key_ok(key) => return invalid("kms.key", "the ARN, id or alias of a KMS key"),
            _ => {}
        }
        if !self.other_keys.iter().all(|key| key_ok(key)) {
            return invalid("kms.other_keys", "ARNs, ids or aliases of KMS keys");
        }
        if let (Some(of_key), Some(region)) = (self.key.as_deref().and_then(arn_region), &self.region)
            && of_key != region
        {
            return invalid("kms.region", "the key's ARN names another region");
        }
        // An answer holds the key itself.
        let endpoint_ok = self.endpoint.as_deref().is_none_or(|endpoint| {
            url::Url::parse(endpoint).is_ok_and(|url| match (url.scheme(), url.host()) {
                ("https", Some(_)) => true,
                ("http", Some(url::Host::Ipv4(ip))) => ip.is_loopback(),
                ("http", Some(url::Host::Ipv6(ip))) => ip.is_loopback(),
                _ => false,
            })
        });
        if !endpoint_ok {
            return invalid("kms.endpoint", "an https address, or http on a loopback address (127.0.0.1)");
        }
        Ok(())
    }
}

/// The region of a KMS key's ARN: `arn:aws:kms:REGION:ACCOUNT:key/ID`.
#[must_use]
pub fn arn_region(key: &str) -> Option<&str> {
    let mut parts = key.split(':');
    (parts.next() == Some("arn")).then_some(())?;
    let region = parts.nth(2)?;
    (!region.is_empty()).then_some(region)
}

impl DeliverySettings {
    /// The wait before attempt `attempt` (the first is 1) of a delivery, without jitter; none when it is given up.
    #[must_use]
    pub fn wait_before(&self, attempt: u32) -> Option<Duration> {
        let step = usize::try_from(attempt).ok()?.checked_sub(1)?;
        self.schedule_s.get(step).map(|s| Duration::from_secs_f64(*s))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_says_its_region_and_nothing_else_does() {
        assert_eq!(arn_region("arn:aws:kms:eu-central-1:123456789012:key/1234abcd"), Some("eu-central-1"));
        for other in ["alias/statusledger", "1234abcd-12ab", "arn:aws:kms::123456789012:key/x", "arn:"] {
            assert_eq!(arn_region(other), None, "{other}");
        }
    }

    #[test]
    fn kms_is_asked_over_https_or_on_this_machine_and_in_its_keys_region() {
        let check = |change: &dyn Fn(&mut KmsSettings)| {
            let mut settings = Settings::default();
            settings.kms.key = Some("arn:aws:kms:eu-central-1:123456789012:key/1234abcd".into());
            change(&mut settings.kms);
            settings.check().map_err(|e| e.to_string())
        };
        assert_eq!(check(&|_| {}), Ok(()));
        assert_eq!(check(&|kms| kms.region = Some("eu-central-1".into())), Ok(()));
        assert!(check(&|kms| kms.region = Some("us-east-1".into())).unwrap_err().contains("another region"));
        for endpoint in
            ["https://vpce-1.kms.eu-central-1.vpce.amazonaws.com", "http://127.0.0.1:5000", "http://[::1]:1"]
        {
            assert_eq!(check(&|kms| kms.endpoint = Some(endpoint.into())), Ok(()));
        }
        for endpoint in [
            "http://kms.example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "ftp://127.0.0.1",
            "kms",
        ] {
            assert!(check(&|kms| kms.endpoint = Some(endpoint.into())).is_err(), "{endpoint}");
        }
        assert!(check(&|kms| kms.key = Some(String::new())).is_err());
        assert!(check(&|kms| (kms.key, kms.region) = (None, Some("eu-central-1".into()))).is_err());
        assert!(check(&|kms| kms.other_keys = vec!["two words".into()]).is_err());
    }

    #[test]
    fn people_come_by_https_or_are_on_this_machine() {
        let check = |url: &str| Settings { public_url: Some(url.into()), ..Settings::default() }.check();
        for good in [
            "https://status.example.com",
            "https://10.0.0.1:8443",
            "http://localhost:8480",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "http://status.example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "https://a/",
            "https://a/b",
            "httpx://localhost",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn identity_providers_are_reached_by_https_or_on_this_machine() {
        for (address, holds) in [
            ("https://id.example.com/realms/a", true),
            ("http://localhost:8080", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080/x", true),
            ("http://id.example.com", false),
            ("http://localhost.example.com", false),
            ("https://user@id.example.com", false),
            ("https://id.example.com/?a=b", false),
            ("file:///etc/passwd", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_private(address), holds, "{address}");
        }
    }

    #[test]
    fn a_clock_that_runs_faster_is_for_simulators_alone() {
        let mut settings = Settings::default();
        assert_eq!(settings.polling.scaled(Duration::from_secs(60)), Duration::from_secs(60));
        settings.polling.time_scale = 60.0;
        assert!(settings.check().is_err());
        settings.polling.allow_other_hosts = true;
        assert!(settings.check().is_ok());
        assert_eq!(settings.polling.scaled(Duration::from_secs(60)), Duration::from_secs(1));
        for wrong in [0.0, 0.5, 1001.0, f64::NAN] {
            settings.polling.time_scale = wrong;
            assert!(settings.check().is_err(), "{wrong}");
        }
    }
}
