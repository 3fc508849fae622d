//! What a JPEG's numbers mean: red, green and blue, luma and chroma, or inks. The file says so in up to three
//! places, and readers weigh them differently.

use std::borrow::Cow;

use crate::media::Doubt;

/// A picture decoded too dark or in wrong colours is an evasion, so whoever is unsure asks a person.
const fn doubt(message: &'static str) -> Doubt {
    Doubt { code: Cow::Borrowed("colour_unproven"), message: Cow::Borrowed(message) }
}

const YCCK: Doubt = doubt(
    "this JPEG holds inks as luma and chroma (YCCK); our reading of that form is not proven on real files, \
     so a person should see it",
);
const INKS_UNMARKED: Doubt = doubt(
    "this JPEG holds inks (CMYK) without Adobe's marker, and viewers disagree on whether a high value means \
     much or little ink, so a person should see it",
);
const DISAGREEING: Doubt = doubt(
    "this JPEG says in two places two things about its colours, and viewers disagree on which to follow, so \
     a person should see it",
);

/// The markers seen so far.
#[derive(Default)]
pub(super) struct Claims {
    jfif: bool,
    /// Adobe's transform: 0 none, 1 luma and chroma, 2 luma, chroma and black.
    adobe: Option<u8>,
    contradicting: bool,
}

impl Claims {
    /// An APP0 segment.
    pub(super) fn app0(&mut self, body: &[u8]) {
        self.jfif |= body.starts_with(b"JFIF\0");
    }

    /// An APP14 segment.
    pub(super) fn app14(&mut self, body: &[u8]) {
        if let (true, Some(transform)) = (body.starts_with(b"Adobe"), body.get(11)) {
            self.contradicting |= self.adobe.is_some_and(|earlier| earlier != *transform);
            self.adobe = Some(*transform);
        }
    }

    /// What about the colours is not sure, given the components' names in the frame header.
    pub(super) fn doubts(&self, components: &[u8]) -> Vec<Doubt> {
        let named_rgb = components == b"RGB";
        let doubt = match (components.len(), self.adobe) {
            (3 | 4, _) if self.contradicting => Some(DISAGREEING),
            // libjpeg follows JFIF before Adobe and names last; others go by the names or by Adobe.
            (3, Some(0)) if self.jfif => Some(DISAGREEING),
            (3, Some(0)) => None,
            (3, Some(_)) if named_rgb => Some(DISAGREEING),
            (3, None) if named_rgb && self.jfif => Some(DISAGREEING),
            (3, Some(2)) => Some(DISAGREEING),
            (4, Some(0)) => None,
            (4, Some(2)) => Some(YCCK),
            (4, Some(_)) => Some(DISAGREEING),
            (4, None) => Some(INKS_UNMARKED),
            _ => None,
        };
        doubt.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(jfif: bool, adobe: &[u8], components: &[u8]) -> Option<Doubt> {
        let mut claims = Claims::default();
        if jfif {
            claims.app0(b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        }
        for transform in adobe {
            claims.app14(&[b"Adobe\0\x64\0\0\0\0", &[*transform][..]].concat());
        }
        claims.doubts(components).first().cloned()
    }

    #[test]
    fn ordinary_files_leave_no_doubt() {
        for (jfif, adobe, components) in [
            (true, &[][..], &[1, 2, 3][..]),
            (false, &[], &[1, 2, 3]),
            (false, &[], b"RGB"),
            (false, &[0], b"RGB"),
            (false, &[1], &[1, 2, 3]),
            (true, &[1], &[1, 2, 3]),
            (false, &[0], &[1, 2, 3]),
            (true, &[], &[1]),
            (false, &[0], &[1, 2, 3, 4]),
            (false, &[0], b"CMYK"),
            (true, &[0], b"CMYK"),
        ] {
            assert_eq!(codes(jfif, adobe, components), None, "{jfif} {adobe:?} {components:?}");
        }
    }

    #[test]
    fn what_viewers_read_differently_is_in_doubt() {
        for (jfif, adobe, components, expected) in [
            (true, &[0][..], &[1, 2, 3][..], DISAGREEING),
            (true, &[], b"RGB", DISAGREEING),
            (false, &[1], b"RGB", DISAGREEING),
            (false, &[0, 1], &[1, 2, 3], DISAGREEING),
            (false, &[0, 2], &[1, 2, 3, 4], DISAGREEING),
            (false, &[1], &[1, 2, 3, 4], DISAGREEING),
            (false, &[2], &[1, 2, 3, 4], YCCK),
            (false, &[], &[1, 2, 3, 4], INKS_UNMARKED),
        ] {
            assert_eq!(codes(jfif, adobe, components), Some(expected), "{jfif} {adobe:?} {components:?}");
        }
    }
}
