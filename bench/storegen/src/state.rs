//! An EVM state of any size as a pure function of its number of rows: every row can be named by its position, so nothing is kept
//! in memory but one running count a contract.
//!
//! Shapes follow mainnet: most rows are storage slots of a few very large and many small contracts, about 3 % of the accounts are
//! contracts, half of them minimal proxies, and slots hold small numbers, addresses or hashes.

pub const VERSION: u32 = 1_000_000;

/// A few bytes that look random and depend on nothing but their arguments.
pub fn mix(tag: u64, index: u64) -> u64 {
    let mut z = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_add(0x2545_f491_4f6c_dd1d);
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        z = (z ^ (z >> 29)).wrapping_mul(factor);
    }
    z ^ (z >> 32)
}

fn fill(into: &mut [u8], tag: u64, index: u64) {
    for (at, chunk) in into.chunks_mut(8).enumerate() {
        let word = mix(tag + 1000 * at as u64, index).to_be_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

pub struct Shape {
    pub accounts: u64,
    pub contracts: u64,
    links: u64,
    /// rows of storage before each contract, and their sum at the end
    storage: Vec<u64>,
}

const ACCOUNTS_PER_CONTRACT: u64 = 33;

impl Shape {
    pub fn new(rows: u64) -> Self {
        let accounts = (rows * 12 / 100).max(ACCOUNTS_PER_CONTRACT * 2);
        let contracts = accounts / ACCOUNTS_PER_CONTRACT;
        let links = rows * 7 / 100;
        let slots = rows.saturating_sub(accounts + 3 * contracts + 2 * links);
        // sizes fall off like 1/u: a handful of contracts hold a good part of everything
        let weight = |contract: u64| 1.0 / ((mix(1, contract) >> 11) as f64 / (1u64 << 53) as f64 + 0.0005);
        let total: f64 = (0..contracts).map(weight).sum();
        let mut storage = vec![0];
        for contract in 0..contracts {
            let share = (weight(contract) / total * slots as f64) as u64;
            storage.push(storage.last().unwrap() + share);
        }
        Self { accounts, contracts, links, storage }
    }

    pub fn slots(&self) -> u64 {
        *self.storage.last().unwrap()
    }

    pub fn leaves(&self) -> u64 {
        self.accounts + 3 * self.contracts + 2 * self.links + self.slots()
    }

    pub fn address(&self, account: u64) -> [u8; 20] {
        let step = u64::MAX / self.accounts;
        let mut address = [0; 20];
        address[..8].copy_from_slice(&(account * step + mix(2, account) % step).to_be_bytes());
        fill(&mut address[8..], 3, account);
        address
    }

    pub fn contract_address(&self, contract: u64) -> [u8; 20] {
        self.address(contract * ACCOUNTS_PER_CONTRACT)
    }

    pub fn slot_key(&self, contract: u64, slot: u64) -> [u8; 53] {
        let count = self.storage[contract as usize + 1] - self.storage[contract as usize];
        let step = u64::MAX / count.max(1);
        let row = self.storage[contract as usize] + slot;
        let mut key = [3; 53];
        key[1..21].copy_from_slice(&self.contract_address(contract));
        key[21..29].copy_from_slice(&(slot * step + mix(4, row) % step).to_be_bytes());
        fill(&mut key[29..], 5, row);
        key
    }

    /// Contract and slot of the storage row at a position.
    pub fn locate(&self, row: u64) -> (u64, u64) {
        let contract = self.storage.partition_point(|before| *before <= row) - 1;
        (contract as u64, row - self.storage[contract])
    }

    pub fn codehash(&self, contract: u64) -> [u8; 32] {
        let mut hash = [0; 32];
        fill(&mut hash, 6, if is_proxy(contract) { contract % 50 } else { contract + 1000 });
        hash
    }

    pub fn code(&self, contract: u64, into: &mut Vec<u8>) {
        let size = if is_proxy(contract) {
            45
        } else {
            let u = (mix(8, contract) >> 11) as f64 / (1u64 << 53) as f64;
            (200.0 * (24_576.0f64 / 200.0).powf(u)) as usize
        };
        into.clear();
        into.resize(size, 0);
        // opcodes repeat a lot: every other eight bytes come from a small set
        for (at, chunk) in into.chunks_mut(8).enumerate() {
            let index = if at % 2 == 0 { mix(9, at as u64) % 64 } else { contract * 4096 + at as u64 };
            chunk.copy_from_slice(&mix(10, index).to_be_bytes()[..chunk.len()]);
        }
    }

    /// Every leaf in key order.
    pub fn raw_rows(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.misc_links(visit);
        self.storage_rows(visit);
        let mut code = Vec::new();
        for contract in 0..self.contracts {
            self.code(contract, &mut code);
            visit(&keyed(7, &self.contract_address(contract)), &code);
        }
        for contract in 0..self.contracts {
            visit(&keyed(8, &self.contract_address(contract)), &self.codehash(contract));
        }
        self.code_sizes(visit);
        for account in 0..self.accounts {
            visit(&keyed(0x0a, &self.address(account)), &nonce(account).to_be_bytes());
        }
    }

    pub fn misc_links(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for family in [1u8, 2] {
            let step = u64::MAX / self.links.max(1);
            for link in 0..self.links {
                let (mut key, mut value) = ([family; 21], [0; 20]);
                key[1..9].copy_from_slice(&(link * step + mix(11, link) % step).to_be_bytes());
                fill(&mut key[9..], 12, link);
                fill(&mut value, 13 + u64::from(family), link);
                visit(&key, &value);
            }
        }
    }

    pub fn code_sizes(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let mut code = Vec::new();
        for contract in 0..self.contracts {
            self.code(contract, &mut code);
            visit(&keyed(9, &self.contract_address(contract)), &(code.len() as u64).to_be_bytes());
        }
    }

    pub fn storage_rows(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for contract in 0..self.contracts {
            for slot in 0..self.storage[contract as usize + 1] - self.storage[contract as usize] {
                let row = self.storage[contract as usize] + slot;
                visit(&self.slot_key(contract, slot), &slot_value(row, 0));
            }
        }
    }

    /// The writes of one block: mostly slots rewritten, some new, some deleted, and nonces counted up.
    pub fn block(&self, number: u32, writes: u64, visit: &mut impl FnMut(&[u8], Option<&[u8]>)) {
        for write in 0..writes {
            let draw = u64::from(number) << 32 | write;
            let pick = mix(20, draw);
            if pick % 100 < 15 || self.slots() == 0 {
                let account = mix(21, draw) % self.accounts;
                visit(&keyed(0x0a, &self.address(account)), Some(&(u64::from(number) + write).to_be_bytes()));
                continue;
            }
            let row = mix(22, draw) % self.slots();
            let (contract, slot) = self.locate(row);
            let mut key = self.slot_key(contract, slot);
            match pick % 100 {
                15..20 => visit(&key, None),
                20..25 => {
                    fill(&mut key[45..], 23, draw);
                    visit(&key, Some(&slot_value(row, draw)));
                }
                _ => visit(&key, Some(&slot_value(row, draw))),
            }
        }
    }
}

fn is_proxy(contract: u64) -> bool {
    mix(7, contract).is_multiple_of(2)
}

pub fn keyed(prefix: u8, address: &[u8; 20]) -> [u8; 21] {
    let mut key = [prefix; 21];
    key[1..].copy_from_slice(address);
    key
}

pub fn nonce(account: u64) -> u64 {
    mix(14, account) % 5000 + 1
}

pub fn has_code(account: u64) -> Option<u64> {
    account.is_multiple_of(ACCOUNTS_PER_CONTRACT).then_some(account / ACCOUNTS_PER_CONTRACT)
}

fn slot_value(row: u64, draw: u64) -> [u8; 32] {
    let mut value = [0; 32];
    match mix(15, row) % 10 {
        0..4 => value[26..].copy_from_slice(&(mix(16, row ^ draw) >> 20 | 1).to_be_bytes()[2..]),
        4..7 => fill(&mut value[12..], 17, mix(18, row ^ draw) % 100_000),
        _ => fill(&mut value, 19, row ^ draw << 1),
    }
    value
}

/// Height of a row's last write.
pub fn height(key: &[u8]) -> u32 {
    let tail: [u8; 8] = key[key.len() - 8..].try_into().unwrap();
    (mix(24, u64::from_be_bytes(tail)) % u64::from(VERSION)) as u32 + 1
}
