//! Edits: copies of an app's tracks that are opened, read and thrown away. Nothing can be changed in one here;
//! a commit is answered, and counted.

use axum::http::Method;
use serde_json::{Value, json};

use crate::google_play::errors::ApiError;
use crate::google_play::{Operation, find};
use crate::scenario::Release;
use crate::values::WELL_KNOWN_TRACKS;
use crate::world::{Edit, World, has_track};

/// The answer to an operation on edits, from what the account at a place sees.
pub(super) fn answer(
    asked: &Operation,
    world: &mut World,
    place: usize,
    method: &Method,
    body: &[u8],
) -> Result<Value, ApiError> {
    let account = &world.accounts[place];
    let app = find(account, asked.package().unwrap_or_default())?;
    match asked {
        Operation::Edits { package } => {
            let said = body.iter().any(|byte| !byte.is_ascii_whitespace());
            if said && !serde_json::from_slice::<Value>(body).is_ok_and(|body| body.is_object()) {
                return Err(ApiError::argument("Invalid JSON payload received."));
            }
            let mine = account.releases.iter().filter(|release| release.package == *package);
            let releases = mine.cloned().collect();
            Ok(told(&world.edits.open(place, package, releases)))
        }
        Operation::Edit { package, edit } if method == Method::DELETE => {
            world.edits.delete(place, package, edit).map_err(ApiError::edit)?;
            Ok(Value::Null)
        }
        Operation::CommitEdit { package, edit } => {
            Ok(told(&world.edits.commit(place, package, edit).map_err(ApiError::edit)?))
        }
        Operation::EditTracks { package, edit } => {
            let edit = world.edits.find(place, package, edit).map_err(ApiError::edit)?;
            let own = app.tracks.iter().map(String::as_str);
            let tracks = WELL_KNOWN_TRACKS.iter().copied().chain(own);
            let tracks: Value = tracks.map(|name| track(edit, name)).collect();
            Ok(json!({ "kind": "androidpublisher#tracksListResponse", "tracks": tracks }))
        }
        Operation::EditTrack { package, edit, track: name } => {
            let edit = world.edits.find(place, package, edit).map_err(ApiError::edit)?;
            if !has_track(app, name) {
                return Err(ApiError::no_such_track(name));
            }
            Ok(track(edit, name))
        }
        Operation::Edit { package, edit } => {
            Ok(told(world.edits.find(place, package, edit).map_err(ApiError::edit)?))
        }
        Operation::SearchApps | Operation::ReleaseFilterOptions { .. } | Operation::Releases { .. } => {
            Err(ApiError::not_found())
        }
    }
}

fn told(edit: &Edit) -> Value {
    json!({ "id": edit.id, "expiryTimeSeconds": edit.expires.unix_timestamp().to_string() })
}

/// A track of an edit, the newest release first.
fn track(edit: &Edit, name: &str) -> Value {
    let release = |release: &Release| {
        let codes: Vec<_> = release.version_codes.iter().map(i32::to_string).collect();
        let mut told = json!({
            "name": release.name,
            "versionCodes": codes,
            "status": release.status(),
        });
        if let Some(share) = release.user_fraction {
            told["userFraction"] = share.into();
        }
        if let Some(priority) = release.in_app_update_priority {
            told["inAppUpdatePriority"] = priority.into();
        }
        told
    };
    let releases: Vec<_> =
        edit.releases.iter().rev().filter(|known| known.track == name).map(release).collect();
    let mut told = json!({ "track": name });
    if !releases.is_empty() {
        told["releases"] = releases.into();
    }
    told
}
