//! A hash that is the same in every run, so that ids made from it are found again.

use std::hash::{Hash, Hasher};

/// FNV-1a. Anybody can make collisions, which only cost another id: what an id stands for is compared in full.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        // The low bits of FNV-1a are its weak ones, and ids are made of them.
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// A hash of what something is made of.
pub fn content_hash<T: Hash + ?Sized>(content: &T) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    content.hash(&mut hasher);
    hasher.finish()
}
