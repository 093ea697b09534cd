//! Many images: the list of what to look at, one row for each, and a report over all rows. Nothing here opens anything;
//! `src/cli/sweep.rs` does the work and keeps the rows.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod list;
pub mod rows;
pub mod summary;

/// Which part of the list one of several machines takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: u64,
    pub count: u64,
}

impl Shard {
    /// Whether an image belongs to this part. Its name decides alone, so that machines agree whatever else is on their lists.
    pub fn takes(self, reference: &str) -> bool {
        let digest = crate::names::Digest::of(reference.as_bytes());
        let number = digest.hex().get(..15).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        self.count <= 1 || number % self.count == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn every_image_belongs_to_exactly_one_shard() {
        let mut taken = [0; 3];
        for n in 0..300 {
            let name = format!("registry.example/team/image:{n}");
            let by: Vec<u64> = (0..3).filter(|&index| Shard { index, count: 3 }.takes(&name)).collect();
            assert_eq!(by.len(), 1, "{name}");
            taken[usize::try_from(by[0]).unwrap()] += 1;
        }
        assert!(taken.iter().all(|&n| n > 60), "{taken:?}");
        assert!(Shard { index: 0, count: 1 }.takes("any"));
    }
}
