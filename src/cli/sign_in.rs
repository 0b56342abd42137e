//! One-time links: what `up` and `serve` print, and `sign-in-link`.

use super::{Where, remote, show};
use crate::access::sign_in::{self, link};
use crate::audit::Act;
use crate::config::Settings;
use crate::database::{Database, attach};
use crate::delivery::Outbox;
use crate::id::UserId;
use crate::instance::Instance;
use crate::key_encryption::KeyEncryption;
use crate::node::Node;
use anyhow::{Result, bail};
use clap::Args;
use url::Url;
use zeroize::Zeroizing;

/// Whom a link is for.
#[derive(Debug, Args)]
pub struct LinkArgs {
    #[command(flatten)]
    place: Where,
    /// Signs in this person (`usr_…`). Without it: the instance's owner, or its first one where there is none.
    #[arg(long, value_name = "USER", conflicts_with = "new_owner")]
    user: Option<UserId>,
    /// Signs in somebody new, who becomes another owner of the instance.
    #[arg(long)]
    new_owner: bool,
}

fn address(base: &Url, text: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{}/sign-in/link/{text}", base.as_str().trim_end_matches('/')))
}

/// A link for the first owner, while there is none.
///
/// # Errors
/// If the database does not confirm.
pub async fn first_owners(node: &Node) -> Result<Option<Zeroizing<String>>> {
    let instance = node.instance.workspace;
    if !link::owners(&node.writer, instance).await?.is_empty() {
        return Ok(None);
    }
    let text = link::make(&node.writer, &Act::operator(), instance, link::Whom::FirstOwner).await?;
    Ok(Some(address(&node.base, &text)))
}

/// Makes a link and prints it.
///
/// # Errors
/// If there is no instance, or it is not clear whom the link is for.
pub async fn link(mut settings: Settings, args: LinkArgs) -> Result<u8> {
    args.place.apply(&mut settings);
    let attached = attach::attach(&settings).await?;
    let made = with_database(&settings, &attached.database, &args).await;
    attached.close().await?;
    show::line(made?.as_str());
    Ok(0)
}

async fn with_database(
    settings: &Settings,
    database: &Database,
    args: &LinkArgs,
) -> Result<Zeroizing<String>> {
    if Instance::read(database).await?.is_none() {
        bail!("the database holds no instance yet; `up` or `serve` makes one");
    }
    let (outbox, _) = Outbox::new();
    let encryption = KeyEncryption::load(settings, &settings.instance, database).await?;
    let opened = Instance::open(database, encryption, None, None, outbox).await?;
    let instance = opened.instance.workspace;
    let owners = link::owners(&opened.writer, instance).await?;
    let whom = match (args.user, owners.as_slice()) {
        (Some(user), _) => link::Whom::User(user),
        (None, _) if args.new_owner => link::Whom::NewOwner,
        (None, []) => link::Whom::FirstOwner,
        (None, [owner]) => link::Whom::User(*owner),
        (None, owners) => {
            let known: Vec<String> = owners.iter().map(ToString::to_string).collect();
            bail!("the instance has several owners; name one with --user: {}", known.join(", "));
        }
    };
    let text = link::make(&opened.writer, &Act::operator(), instance, whom).await?;
    // Where a node of this directory listens; a link that was made while none runs is for the port of the settings.
    let port = std::fs::read_to_string(settings.data_dir.join(remote::ADDRESS_FILE))
        .ok()
        .and_then(|text| Url::parse(text.trim()).ok())
        .and_then(|url| url.port());
    let base = sign_in::base(settings.public_url.as_deref(), port.unwrap_or(settings.port))?;
    Ok(address(&base, &text))
}
