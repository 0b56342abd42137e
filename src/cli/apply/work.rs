//! The changes, one by one.
//!
//! Two may apply at once. Names are unique in their workspace, so the second is refused, finds what the first one made, and
//! makes that what it is to be.

use super::file::{Destination, Keys, Source};
use super::plan::{self, Act, Present};
use crate::cli::aside::Aside;
use crate::cli::manage::{Place, sources::report};
use crate::cli::remote::Error;
use crate::cli::show;
use crate::cli::terminal::clean;
use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// How often a destination is begun again because somebody else has made and removed one of the name meanwhile.
const ATTEMPTS: u32 = 5;

/// A change with what it needs: read and begun, so that it cannot fail for that.
pub struct Job {
    /// What is done.
    pub act: Act,
    /// What is sent, where that holds a secret.
    request: Option<Value>,
    /// Where a secret goes that comes.
    secret: Option<Aside>,
}

/// Reads what an act needs, and makes room for what comes of it. The keys of the sources in `other_accounts` may be of
/// another account than the one whose apps the source knows.
///
/// # Errors
/// If something cannot be read, is no key, or there is no room.
pub fn prepare(act: Act, other_accounts: &[String]) -> Result<Job> {
    let room = |file: &Path| Aside::begin(file, true).map(Some);
    let (request, secret) = match &act {
        Act::AddSource(source) | Act::ReplaceSource(source, _) => {
            let request = source.request()?;
            let secret = match &source.keys {
                Keys::Inbound { token_file } => {
                    room(token_file).with_context(|| source.spots.of("token_file"))?
                }
                Keys::AppStore { .. } | Keys::GooglePlay { .. } => None,
            };
            (Some(request), secret)
        }
        Act::SetKey(source, _) => {
            let other_account = other_accounts.contains(&source.name);
            (source.key_request(other_account)?, None)
        }
        Act::SetWebhookSecret(source, _) => {
            let secret = source.webhook_secret()?;
            (Some(json!({ "secret": secret.as_ref().map(|s| s.as_str()) })), None)
        }
        Act::AddDestination(destination) => match &destination.secret_file {
            Some(file) => (None, room(file).with_context(|| destination.spots.of("secret_file"))?),
            None => (None, None),
        },
        Act::ChangeDestination(..) | Act::RemoveDestination(..) | Act::RemoveSource(..) => (None, None),
    };
    Ok(Job { act, request, secret })
}

/// Who carries them out.
pub struct Work<'a> {
    place: &'a Place,
    /// The ids of sources, by name.
    ids: HashMap<String, String>,
}

impl<'a> Work<'a> {
    /// Begins, knowing what was there.
    #[must_use]
    pub fn new(place: &'a Place, present: &Present) -> Self {
        let of = |item: &Value, name: &str| item[name].as_str().map(str::to_owned);
        let ids = present.sources.iter().filter_map(|s| Some((of(s, "name")?, of(s, "id")?))).collect();
        Self { place, ids }
    }

    /// Does one.
    ///
    /// # Errors
    /// If the instance refuses.
    pub async fn carry_out(&mut self, job: Job) -> Result<()> {
        let Job { act, request, secret } = job;
        match act {
            Act::AddSource(source) => self.add_source(&source, request, secret).await,
            Act::ReplaceSource(source, id) => {
                self.remove(&format!("sources/{id}")).await?;
                self.add_source(&source, request, secret).await
            }
            Act::SetKey(_, id) => {
                let after =
                    self.place.change(Method::PUT, &format!("sources/{id}/key"), request.as_ref()).await?;
                report(&after);
                Ok(())
            }
            Act::SetWebhookSecret(_, id) => {
                let path = format!("sources/{id}/webhook-secret");
                self.place.change(Method::PUT, &path, request.as_ref()).await?;
                Ok(())
            }
            Act::AddDestination(destination) => self.add_destination(&destination, secret).await,
            Act::ChangeDestination(destination, id, _) => {
                let body = self.body(&destination)?;
                self.place.change(Method::PATCH, &format!("destinations/{id}"), Some(&body)).await?;
                Ok(())
            }
            Act::RemoveDestination(_, id) => self.remove(&format!("destinations/{id}")).await,
            Act::RemoveSource(_, id) => self.remove(&format!("sources/{id}")).await,
        }
    }

    /// Removes what may be gone by now.
    async fn remove(&self, path: &str) -> Result<()> {
        match self.place.change(Method::DELETE, path, None).await {
            Ok(_) | Err(Error::Refused { status: 404, .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    async fn add_source(
        &mut self,
        source: &Source,
        request: Option<Value>,
        secret: Option<Aside>,
    ) -> Result<()> {
        let made = match self.place.change(Method::POST, "sources", request.as_ref()).await {
            Err(Error::Refused { status: 409, .. }) => {
                let all = self.place.list("sources").await?;
                let there =
                    all.into_iter().find(|s| s["name"] == source.name && s["kind"] == source.kind.name());
                let there = there
                    .with_context(|| format!("{}: another source took the name", source.spots.name()))?;
                show::note(format!(
                    "statusledger: somebody else made the source \"{}\" meanwhile, with keys of their own",
                    clean(&source.name)
                ));
                self.know(source, &there)?;
                return Ok(());
            }
            made => made?,
        };
        self.know(source, &made)?;
        report(&made);
        if let Some(secret) = secret {
            keep(&made, "token", secret).with_context(|| {
                let name = clean(&source.name);
                format!(
                    "the source \"{name}\" was made, but its token is lost; --replace-keys gives it another"
                )
            })?;
        }
        Ok(())
    }

    fn know(&mut self, source: &Source, there: &Value) -> Result<()> {
        let id = there["id"].as_str().context("the instance answers with a source without an id")?;
        self.ids.insert(source.name.clone(), id.to_owned());
        Ok(())
    }

    /// A destination as the API takes it, all of it.
    fn body(&self, wanted: &Destination) -> Result<Value> {
        let mut filter = json!(wanted.filter);
        let mut sources = Vec::with_capacity(wanted.sources.len());
        for name in &wanted.sources {
            sources
                .push(self.ids.get(name).with_context(|| format!("the source \"{}\" is gone", clean(name)))?);
        }
        if !sources.is_empty() {
            filter["sources"] = json!(sources);
        }
        let mut body = json!({
            "name": wanted.name,
            "url": wanted.url,
            "filter": filter,
            "max_in_flight": wanted.max_in_flight,
        });
        if let Some(openings) = wanted.openings {
            body["openings"] = openings.into();
        }
        if let Some(enabled) = wanted.enabled {
            body["enabled"] = enabled.into();
        }
        Ok(body)
    }

    async fn add_destination(&self, wanted: &Destination, secret: Option<Aside>) -> Result<()> {
        let change = self.body(wanted)?;
        let mut request = change.clone();
        let enabled = request.as_object_mut().and_then(|body| body.remove("enabled"));
        for _ in 0..ATTEMPTS {
            let made = match self.place.change(Method::POST, "destinations", Some(&request)).await {
                Err(Error::Refused { status: 409, .. }) => {
                    if let Some(there) = self.called(&wanted.name).await?
                        && self.adopt(wanted, &change, &there).await?
                    {
                        return Ok(());
                    }
                    continue;
                }
                made => made?,
            };
            if enabled == Some(Value::Bool(false)) {
                let path = format!("destinations/{}", plan::id(&made)?);
                self.place.change(Method::PATCH, &path, Some(&json!({ "enabled": false }))).await?;
            }
            return told(wanted, &made, secret);
        }
        bail!("others keep making and removing destinations called \"{}\"", clean(&wanted.name))
    }

    async fn called(&self, name: &str) -> Result<Option<Value>, Error> {
        let all = self.place.list("destinations").await?;
        Ok(all.into_iter().find(|d| d["name"] == name))
    }

    /// Makes one that somebody else made what it is to be; false where they have taken it back.
    async fn adopt(&self, wanted: &Destination, change: &Value, there: &Value) -> Result<bool> {
        let sources = self.place.list("sources").await?;
        if !plan::differences(wanted, there, &sources).is_empty() {
            let path = format!("destinations/{}", plan::id(there)?);
            match self.place.change(Method::PATCH, &path, Some(change)).await {
                Err(Error::Refused { status: 404, .. }) => return Ok(false),
                changed => changed?,
            };
        }
        show::note(format!(
            "statusledger: somebody else made the destination \"{}\" meanwhile, and has its secret",
            clean(&wanted.name)
        ));
        Ok(true)
    }
}

/// Puts a new destination's secret where the file says.
fn told(wanted: &Destination, made: &Value, secret: Option<Aside>) -> Result<()> {
    let name = clean(&wanted.name);
    match secret {
        Some(secret) => keep(made, "secret", secret).with_context(|| {
            format!("the destination \"{name}\" was made, but its secret is lost; `destinations rotate-secret` gives it another")
        }),
        None => {
            show::note(format!(
                "statusledger: the secret of \"{name}\" is not shown (it has no secret_file); \
                 `statusledger destinations rotate-secret` gives it one that is"
            ));
            Ok(())
        }
    }
}

/// Writes a secret to its file.
fn keep(made: &Value, member: &str, mut file: Aside) -> Result<()> {
    let text = made[member].as_str().with_context(|| format!("the answer has no {member}"))?;
    writeln!(file.file(), "{text}")?;
    file.finish()
}
