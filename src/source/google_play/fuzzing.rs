//! What the fuzz targets reach into; built for them alone.

use super::answer::{self, Listed};
use super::looks;
use crate::source::look::Look;

/// Takes out of an answer what any poll would.
#[must_use]
pub fn answer(body: &[u8]) -> Look {
    let mut look = Look::default();
    let mut apps = Listed::new();
    drop(answer::apps(body, &mut apps));
    looks::listed_apps(apps, true, &mut look);
    if let Ok(listed) = answer::releases(body, "production") {
        looks::releases("com.example.app", "production", Some("Example"), listed, &mut look);
    }
    if let Ok(listed) = answer::tracks(body) {
        looks::plan("com.example.app", listed.items, &mut look);
    }
    if let Ok(tracks) = answer::edit_tracks(body) {
        looks::plan("com.example.app", tracks.tracks, &mut look);
        looks::rollouts("com.example.app", None, tracks.rollouts, &mut look);
    }
    drop(answer::edit(body));
    look
}
