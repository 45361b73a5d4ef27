//! What maps take of the kernel's memory.
//!
//! The kernel charges it to the cgroup of whoever makes a map, at once for all elements of a table that is allocated
//! beforehand. An agent whose container may have less does not start.

use super::{Definition, MapShape};

/// `struct htab_elem`, `struct bucket` (kernel/bpf/hashtab.c), `struct lpm_trie_node` (kernel/bpf/lpm_trie.c), in bytes.
const HASH_ELEMENT: u64 = 48;
const BUCKET: u64 = 16;
const TRIE_NODE: u64 = 40;

impl Definition {
    /// Bytes that all maps take when they are full.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.maps.values().map(|shape| shape.memory(cpus())).sum()
    }
}

impl MapShape {
    /// Bytes that the map takes when it is full, as the kernel counts (`map_mem_usage` of each type).
    fn memory(self, cpus: u64) -> u64 {
        let [key, value, entries] = [self.key_size, self.value_size, self.max_entries].map(u64::from);
        let (padded_key, padded_value) = (key.next_multiple_of(8), value.next_multiple_of(8));
        match self.map_type {
            // Hash and LRU hash.
            1 | 9 => (HASH_ELEMENT + padded_key + padded_value) * entries + BUCKET * entries.next_power_of_two(),
            // The same with a value for each CPU.
            5 | 10 => {
                (HASH_ELEMENT + padded_key + 8 + padded_value * cpus) * entries + BUCKET * entries.next_power_of_two()
            }
            6 => padded_value * cpus * entries,
            11 => (TRIE_NODE + key.saturating_sub(4) + value) * entries,
            27 => entries,
            // Socket storage is made with each socket.
            24 => 0,
            _ => padded_value * entries,
        }
    }
}

fn cpus() -> u64 {
    aya::util::nr_cpus().map_or(1, |cpus| cpus as u64)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;
    use crate::bpf::Map;

    /// Compares with what the kernel says of a map (`memlock` in its fdinfo, since Linux 6.4 what it really takes).
    #[test]
    fn it_is_what_the_kernel_counts() {
        let shape = |map_type, key_size, value_size, max_entries| MapShape {
            map_type,
            key_size,
            value_size,
            max_entries,
            flags: 0,
        };
        let shapes = [
            shape(1, 36, 60, 4096),
            shape(9, 40, 64, 2048),
            shape(2, 4, 20, 4096),
            shape(6, 4, 24, 256),
            shape(27, 0, 0, 1 << 18),
        ];
        for shape in shapes {
            let map = Map::create("memory", shape).expect("this test needs root");
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).unwrap();
            let counted: u64 =
                info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok()).unwrap();
            let reckoned = shape.memory(cpus());
            assert!(
                reckoned.abs_diff(counted) <= counted / 10 + 16384,
                "{shape}: {reckoned}, the kernel says {counted}"
            );
        }
    }
}
