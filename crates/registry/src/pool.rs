//! The cluster's finite pools: the addresses and node ports that Services take.
//!
//! A kind that takes items from a pool implements [`Pooled`], which lists the items it wants and the items it holds.
//! The pipeline finds free items and writes the allocation in the object's own transaction.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use quorate_api::FieldError;
use serde_json::Value;

/// Maximum number of IPv4 addresses of a block that are used, as in Kubernetes. A larger block is cut off there.
const MAX_ADDRESSES: u64 = 65_536;
/// Size of the reserved part of a range: its minimum, its maximum, and the divisor of the range's size. Reserved items
/// are drawn at random only when all others are taken, so that they stay free for clients that ask for a particular
/// item.
const RESERVED_ADDRESSES: (u64, u64, u64) = (16, 256, 16);
const RESERVED_PORTS: (u64, u64, u64) = (16, 128, 32);

/// An item that at most one object may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    Address(IpAddr),
    Port(u16),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Address(address) => address.fmt(f),
            Item::Port(port) => port.fmt(f),
        }
    }
}

/// An IP family, by its name in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    IPv4,
    IPv6,
}

impl Family {
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::IPv4 } else { Family::IPv6 }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Family::IPv4 => "IPv4",
            Family::IPv6 => "IPv6",
        }
    }

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Family::IPv4 => Family::IPv6,
            Family::IPv6 => Family::IPv4,
        }
    }

    /// Parses a family's name; `None` for another word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Family::IPv4, Family::IPv6].into_iter().find(|family| family.as_str() == text)
    }
}

/// The reason why a text is not a block of service addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("{0:?} is not a block of addresses; write it as 10.96.0.0/16 or fd00:96::/112")]
    Malformed(String),
    #[error("{block} is not the first address of its block; write {first}")]
    NotAligned { block: String, first: String },
    #[error("{0} has no address for a service: use at least a /30, or a /126 for IPv6")]
    TooSmall(String),
}

/// A block of addresses, such as `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBlock {
    first: IpAddr,
    prefix_bits: u8,
}

impl AddressBlock {
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Returns the number of usable addresses, which excludes the network address and IPv4's broadcast address.
    fn size(&self) -> u64 {
        let host_bits = if self.first.is_ipv4() { 32 - self.prefix_bits } else { 128 - self.prefix_bits };
        match self.first {
            IpAddr::V4(_) => (1_u64 << host_bits).min(MAX_ADDRESSES).saturating_sub(2),
            IpAddr::V6(_) => (1_u64 << host_bits.min(16)).saturating_sub(1),
        }
    }

    /// Returns the first usable address.
    #[must_use]
    pub fn first_usable(&self) -> IpAddr {
        self.nth(0)
    }

    fn nth(&self, index: u64) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                Ipv4Addr::from(u32::from(first).saturating_add(index).saturating_add(1)).into()
            }
            IpAddr::V6(first) => {
                let address = u128::from(first).saturating_add(u128::from(index)).saturating_add(1);
                Ipv6Addr::from(address).into()
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let distance = match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                u32::from(address).checked_sub(u32::from(first)).map(u128::from)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => u128::from(address).checked_sub(u128::from(first)),
            _ => None,
        };
        distance.is_some_and(|distance| (1..=u128::from(self.size())).contains(&distance))
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

impl FromStr for AddressBlock {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let malformed = || BlockError::Malformed(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits: u8 = bits.parse().map_err(|_| malformed())?;
        let first: IpAddr = match address {
            IpAddr::V4(v4) if bits <= 32 => {
                Ipv4Addr::from(u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into()
            }
            IpAddr::V6(v6) if bits <= 128 => {
                Ipv6Addr::from(u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into()
            }
            _ => return Err(malformed()),
        };
        let most = if first.is_ipv4() { 30 } else { 126 };
        if bits > most {
            return Err(BlockError::TooSmall(text.to_owned()));
        }
        if first != address {
            return Err(BlockError::NotAligned { block: text.to_owned(), first: format!("{first}/{bits}") });
        }
        Ok(AddressBlock { first, prefix_bits: bits })
    }
}

/// The name of a pool, as claims refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolName {
    Addresses(Family),
    Ports,
}

/// The items of one pool, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pool {
    Addresses(AddressBlock),
    Ports(RangeInclusive<u16>),
}

impl Pool {
    /// Returns the number of items.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Pool::Addresses(block) => block.size(),
            Pool::Ports(ports) => u64::try_from(ports.len()).unwrap_or_default(),
        }
    }

    /// Returns how many of the first items are reserved: they are drawn at random only when the others are taken.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let (least, most, share) = match self {
            Pool::Addresses(_) => RESERVED_ADDRESSES,
            Pool::Ports(_) => RESERVED_PORTS,
        };
        if self.size() <= least { 0 } else { (self.size() / share).clamp(least, most) }
    }

    /// Returns the item at a position below [`Pool::size`].
    #[must_use]
    pub fn nth(&self, index: u64) -> Item {
        match self {
            Pool::Addresses(block) => Item::Address(block.nth(index)),
            Pool::Ports(ports) => Item::Port(ports.start().saturating_add(u16::try_from(index).unwrap_or(u16::MAX))),
        }
    }

    #[must_use]
    pub fn contains(&self, item: Item) -> bool {
        match (self, item) {
            (Pool::Addresses(block), Item::Address(address)) => block.contains(address),
            (Pool::Ports(ports), Item::Port(port)) => ports.contains(&port),
            _ => false,
        }
    }
}

/// The pools of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    /// One block for each family that Services can have; the first is the default family's.
    blocks: Vec<AddressBlock>,
    node_ports: RangeInclusive<u16>,
}

/// The reason why address blocks and node ports do not form the pools of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolsError {
    #[error("Services have one block of addresses, or one for each of IPv4 and IPv6")]
    Families,
    #[error("the node ports {0}-{1} are not a range: the first is at least 1 and not above the last")]
    NodePorts(u16, u16),
}

impl Pools {
    /// # Errors
    /// When there is not one block, or one for each family, or the ports are not a range.
    pub fn new(blocks: Vec<AddressBlock>, node_ports: RangeInclusive<u16>) -> Result<Self, PoolsError> {
        match blocks.as_slice() {
            [_] => {}
            [first, second] if first.family() != second.family() => {}
            _ => return Err(PoolsError::Families),
        }
        if node_ports.is_empty() || *node_ports.start() == 0 {
            return Err(PoolsError::NodePorts(*node_ports.start(), *node_ports.end()));
        }
        Ok(Pools { blocks, node_ports })
    }

    /// Returns the families that Services can have, the default one first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.blocks.iter().map(AddressBlock::family)
    }

    #[must_use]
    pub fn default_family(&self) -> Family {
        self.families().next().unwrap_or(Family::IPv4)
    }

    /// Returns the block of the default family.
    #[must_use]
    pub fn default_block(&self) -> Option<AddressBlock> {
        self.blocks.first().copied()
    }

    #[must_use]
    pub fn node_ports(&self) -> &RangeInclusive<u16> {
        &self.node_ports
    }

    /// Returns the pool of this name, if the cluster has it.
    #[must_use]
    pub fn pool(&self, name: PoolName) -> Option<Pool> {
        match name {
            PoolName::Addresses(family) => {
                self.blocks.iter().find(|block| block.family() == family).copied().map(Pool::Addresses)
            }
            PoolName::Ports => Some(Pool::Ports(self.node_ports.clone())),
        }
    }

    /// Returns whether any pool contains the item.
    #[must_use]
    pub fn contains(&self, item: Item) -> bool {
        match item {
            Item::Address(address) => self.blocks.iter().any(|block| block.contains(address)),
            Item::Port(port) => self.node_ports.contains(&port),
        }
    }
}

impl Default for Pools {
    /// Returns `10.96.0.0/16` and Kubernetes' node ports.
    fn default() -> Self {
        let first = Ipv4Addr::new(10, 96, 0, 0).into();
        Pools { blocks: vec![AddressBlock { first, prefix_bits: 16 }], node_ports: 30_000..=32_767 }
    }
}

/// A request of an object for an item of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub pool: PoolName,
    /// The item that the object asks for; `None` for any free one.
    pub wanted: Option<Item>,
    /// The fields of the object that get the item.
    pub slots: Vec<Slot>,
}

/// A field of an object that holds an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `spec.clusterIPs[i]`.
    ClusterIp(usize),
    /// `spec.ports[i].nodePort`.
    NodePort(usize),
    /// `spec.healthCheckNodePort`.
    HealthCheckNodePort,
}

/// The reason why a claim cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// Another object holds the requested item.
    Taken,
    /// No item is free.
    Full,
}

/// The refusal of an unmet claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    Invalid(FieldError),
    Internal(String),
}

/// A kind whose objects take items from the cluster's pools.
pub trait Pooled: Send + Sync {
    /// Completes the object's fields that depend on the pools, before it is validated, and refuses items that the pools
    /// do not have.
    fn fit(&self, object: &mut Value, old: Option<&Value>, pools: &Pools) -> Vec<FieldError>;

    /// Returns the claims of the object beyond the items that `old` holds.
    fn claims(&self, object: &Value, old: Option<&Value>) -> Vec<Claim>;

    /// Writes an allocated item into the fields of its claim.
    fn assign(&self, object: &mut Value, claim: &Claim, item: Item);

    /// Returns all items that the object holds, each once.
    fn holds(&self, object: &Value) -> Vec<Item>;

    fn refusal(&self, object: &Value, claim: &Claim, unmet: Unmet) -> Refusal;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Pool {
        Pool::Addresses(text.parse().expect("a block"))
    }

    #[test]
    fn network_and_broadcast_addresses_are_not_used() {
        for (text, size, first, last) in [
            ("10.96.0.0/16", 65_534, "10.96.0.1", "10.96.255.254"),
            ("10.0.0.0/8", 65_534, "10.0.0.1", "10.0.255.254"),
            ("10.0.0.8/30", 2, "10.0.0.9", "10.0.0.10"),
            ("fd00:96::/112", 65_535, "fd00:96::1", "fd00:96::ffff"),
            ("fd00:96::/64", 65_535, "fd00:96::1", "fd00:96::ffff"),
            ("fd00::/126", 3, "fd00::1", "fd00::3"),
        ] {
            let pool = block(text);
            let address = |text: &str| Item::Address(text.parse().expect("an address"));
            assert_eq!((pool.size(), pool.nth(0), pool.nth(size - 1)), (size, address(first), address(last)), "{text}");
            assert!(pool.contains(pool.nth(0)) && pool.contains(pool.nth(size - 1)), "{text}");
        }
        let pool = block("10.0.0.8/30");
        for outside in ["10.0.0.8", "10.0.0.11", "10.0.0.12", "fd00::1"] {
            assert!(!pool.contains(Item::Address(outside.parse().expect("an address"))), "{outside}");
        }
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for (text, expected) in [
            ("10.96.0.0", "\"10.96.0.0\" is not a block of addresses; write it as 10.96.0.0/16 or fd00:96::/112"),
            ("10.96.0.0/33", "\"10.96.0.0/33\" is not a block of addresses; write it as 10.96.0.0/16 or fd00:96::/112"),
            ("10.96.0.1/16", "10.96.0.1/16 is not the first address of its block; write 10.96.0.0/16"),
            ("10.96.0.0/31", "10.96.0.0/31 has no address for a service: use at least a /30, or a /126 for IPv6"),
        ] {
            assert_eq!(text.parse::<AddressBlock>().expect_err("refused").to_string(), expected);
        }
        let v4: AddressBlock = "10.96.0.0/16".parse().expect("a block");
        assert_eq!(v4.to_string(), "10.96.0.0/16");
        assert_eq!(Pools::new(vec![v4, v4], 1..=2), Err(PoolsError::Families));
        let ports = RangeInclusive::new(2, 1);
        assert_eq!(Pools::new(vec![v4], ports), Err(PoolsError::NodePorts(2, 1)));
    }

    #[test]
    fn the_first_items_of_a_pool_are_reserved() {
        for (pool, reserved) in [
            (block("10.96.0.0/16"), 256),
            (block("10.96.0.0/24"), 16),
            (block("10.96.0.0/28"), 0),
            (Pool::Ports(30_000..=32_767), 86),
            (Pool::Ports(30_000..=30_015), 0),
        ] {
            assert_eq!(pool.reserved(), reserved, "{pool:?}");
        }
    }
}
