//! What judges are shown of a content, and where in it each of that stands.

use tokio::sync::OwnedSemaphorePermit;

use crate::scheduler::{Shown, View, Views};
use crate::verdict::{FrameAt, Worst};
use crate::{media, text};

pub fn of_text(views: Vec<text::View>) -> Views {
    let view = |view: text::View| View { shown: Shown::Text(view.text), place: Worst::Window(view.at) };
    Views { views: views.into_iter().map(view).collect(), memory: None }
}

pub fn of_picture(views: Vec<media::View>, memory: Option<OwnedSemaphorePermit>) -> Views {
    let view = |view: media::View| View {
        place: Worst::Frame(FrameAt { frame: view.frame, at_ms: view.at_ms, background: view.background }),
        shown: Shown::Picture(view.picture),
    };
    Views { views: views.into_iter().map(view).collect(), memory }
}
