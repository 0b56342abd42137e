//! `members`.

use super::{Asking, Place, Value, is_past, items, lines, plain, text};
use crate::access::scope::Role;
use crate::cli::remote::Error;
use crate::cli::terminal::{Table, Yield, clean};
use crate::cli::words;
use crate::config::Settings;
use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

/// What to do with members.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists members, and who is invited.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Invites somebody; prints a link, shown this once, that they open to come in: hand it to them.
    Invite {
        #[command(flatten)]
        asking: Asking,
        /// Their address
        #[arg(value_name = "EMAIL")]
        email: String,
        /// What they may do
        #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::name)))]
        role: String,
    },
    /// Withdraws an invitation.
    Withdraw {
        #[command(flatten)]
        asking: Asking,
        /// The invitation, by its id or the address
        #[arg(value_name = "INVITATION")]
        invitation: String,
    },
    /// Gives a member another role.
    Role {
        #[command(flatten)]
        named: Named,
        /// What they may do from now on
        #[arg(value_name = "ROLE", value_parser = PossibleValuesParser::new(Role::ALL.map(Role::name)))]
        role: String,
    },
    /// Removes a member.
    Remove(Named),
}

/// A member of a workspace.
#[derive(Debug, Args)]
pub struct Named {
    #[command(flatten)]
    asking: Asking,
    /// The member, by address or id
    #[arg(value_name = "MEMBER")]
    member: String,
}

/// Runs a command.
///
/// # Errors
/// If the instance refuses.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::List { asking } => {
            let place = Place::open(settings, &asking).await?;
            let members = place.list("members").await?;
            let invited = place.list("invitations").await?;
            let document =
                json!({ "members": items(&members)["items"], "invitations": items(&invited)["items"] });
            place.desk.show(&document, || table(&members, &invited))
        }
        Command::Invite { asking, email, role } => {
            let place = Place::open(settings, &asking).await?;
            let body = json!({ "email": email, "role": role });
            let made = place.change(Method::POST, "invitations", Some(&body)).await?;
            let until = words::second(text(&made, "expires_at"));
            let mut sentence = format!(
                "{} is invited as {role}, until {until}: they open the link, which holds for one person",
                clean(&email)
            );
            let before = "; it takes the place of an earlier one, which was withdrawn";
            sentence.extend(listed(&made["invitations_withdrawn"], before));
            place.desk.show_once(&made, "link", &sentence)
        }
        Command::Withdraw { asking, invitation } => {
            let place = Place::open(settings, &asking).await?;
            let all = place.list("invitations").await?;
            let all = all.into_iter().filter(|i| text(i, "id") == invitation || is_open(i)).collect();
            let id = super::one(all, &["email"], "invitation", &invitation)?.id;
            place.change(Method::DELETE, &format!("invitations/{id}"), None).await?;
            place.desk.show(&json!({ "id": id, "done": "withdrawn" }), || {
                vec![format!("the invitation {id} was withdrawn")]
            })
        }
        Command::Role { named, role } => {
            let (place, id) = find(settings, &named).await?;
            place.change(Method::PATCH, &format!("members/{id}"), Some(&json!({ "role": role }))).await?;
            place.desk.show(&json!({ "id": id, "role": role }), || {
                vec![format!("{} is {role} now", clean(&named.member))]
            })
        }
        Command::Remove(named) => {
            let (place, id) = find(settings, &named).await?;
            let left = place.change(Method::DELETE, &format!("members/{id}"), None).await?;
            let (invitations, keys) = (&left["invitations_withdrawn"], &left["keys_at_rest"]);
            let document = json!({ "id": id, "done": "removed", "invitations_withdrawn": invitations, "keys_at_rest": keys });
            place.desk.show(&document, || {
                let mut lines = vec![format!("{} is no member any more", clean(&named.member))];
                lines.extend(listed(invitations, "their open invitations were withdrawn"));
                let rest =
                    "these API keys of theirs open nothing any more (`api-keys rotate` what others need)";
                lines.extend(listed(keys, rest));
                lines
            })
        }
    }
}

async fn find(settings: &Settings, named: &Named) -> Result<(Place, String)> {
    let place = Place::open(settings, &named.asking).await?;
    let members = place.list("members").await?;
    // Not by the address that somebody was invited by: whoever had the link came in as that.
    let invited = invited_as(&members, &named.member);
    match super::one(members, &["email"], "member", &named.member) {
        Ok(found) => Ok((place, found.id)),
        Err(_) if !invited.is_empty() => {
            let (given, ids) = (clean(&named.member), invited.join(", "));
            let words = format!("nobody has verified the address \"{given}\": give the member's id: {ids}");
            Err(Error::Usage(words).into())
        }
        Err(error) => Err(error),
    }
}

/// The ids of members that were invited by the address `given`, whoever they are.
fn invited_as(members: &[Value], given: &str) -> Vec<String> {
    let given = given.trim().to_lowercase();
    let is_meant = |member: &&Value| {
        let invited = text(member, "invited_as").trim().to_lowercase();
        !invited.is_empty() && invited == given
    };
    let members = members.iter().filter(is_meant);
    members.map(|member| clean(text(member, "user")).into_owned()).filter(|id| !id.is_empty()).collect()
}

/// A sentence about ids; none where there are none.
fn listed(ids: &Value, what: &str) -> Option<String> {
    let ids: Vec<_> = ids.as_array()?.iter().filter_map(Value::as_str).map(clean).collect();
    (!ids.is_empty()).then(|| format!("{what}: {}", ids.join(", ")))
}

/// Whether an invitation can still be accepted.
fn is_open(invitation: &Value) -> bool {
    !["accepted_at", "revoked_at"].iter().any(|name| invitation[*name].is_string())
        && !is_past(invitation, "expires_at")
}

fn table(members: &[Value], invited: &[Value]) -> Vec<String> {
    let mut table = Table::new(&[
        ("ADDRESS", Yield::End),
        ("NAME", Yield::End),
        ("ROLE", Yield::Never),
        ("STATE", Yield::Never),
        ("ID", Yield::Never),
    ]);
    for member in members {
        // What they were invited by is what there is to know them by where no provider has said more.
        let address = match (text(member, "email"), text(member, "invited_as")) {
            ("", "") => String::new(),
            ("", invited) => format!("{invited} (not verified)"),
            (email, _) => email.to_owned(),
        };
        table.row(vec![
            plain(address),
            plain(text(member, "name")),
            plain(text(member, "role")),
            plain(format!("since {}", words::second(text(member, "created_at")))),
            plain(text(member, "user")),
        ]);
    }
    for invitation in invited.iter().filter(|i| is_open(i)) {
        table.row(vec![
            plain(text(invitation, "email")),
            plain(""),
            plain(text(invitation, "role")),
            plain(format!("invited, until {}", words::second(text(invitation, "expires_at")))),
            plain(text(invitation, "id")),
        ]);
    }
    lines(&table, "nobody is a member yet: `statusledger members invite EMAIL --role ROLE`")
}
