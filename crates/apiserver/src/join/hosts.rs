//! The hosts of a worker's serving certificate.
//!
//! One authority signs for servers and workers, so a worker must not get a certificate with which it could pass for an
//! API server or for a Service: none for a master's name or address, for a name that the masters' certificates hold, or
//! for an address of Services.

use std::collections::HashSet;
use std::net::IpAddr;

use quorate_api::{Reason, Status};
use quorate_pki::{SigningRequest, canonical_host};
use quorate_registry::pool::{Item, Pools};
use quorate_store::Member;

use super::served::Served;

/// The hosts that no worker may have, in their canonical form.
pub(super) struct TakenHosts<'a> {
    /// Names and addresses of the members of the quorum, and of those that were invited into it.
    masters: HashSet<String>,
    /// Hosts of each master's serving certificate, such as those of a load balancer, and the addresses of its machine.
    served: Vec<(HashSet<String>, &'a [IpAddr])>,
    /// Addresses of Services.
    pools: &'a Pools,
}

/// A worker that asks for certificates.
pub(super) struct Worker<'a> {
    pub name: &'a str,
    pub signing: &'a SigningRequest,
    /// Address from which it asks.
    pub from: Option<IpAddr>,
    pub purpose: Purpose<'a>,
}

/// Why a worker asks for certificates.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    Join,
    /// It renews its certificates, so its name cannot change any more. A host that was signed before is no reason to
    /// refuse it, because it would die when its certificates expire.
    Renew {
        /// The addresses that were signed before; `None` when they were not recorded.
        signed: Option<&'a [IpAddr]>,
    },
}

impl Purpose<'_> {
    fn is_join(self) -> bool {
        matches!(self, Purpose::Join)
    }

    fn had(self, address: IpAddr) -> bool {
        match self {
            Purpose::Join => false,
            Purpose::Renew { signed } => signed.is_none_or(|signed| signed.contains(&address)),
        }
    }
}

impl<'a> TakenHosts<'a> {
    pub(super) fn new<'m>(
        masters: impl Iterator<Item = &'m Member>,
        served: impl Iterator<Item = &'a Served>,
        pools: &'a Pools,
    ) -> Self {
        let of_master = |member: &Member| {
            [member.name.as_str(), host(&member.peer), host(&member.api), host(&member.etcd)].map(canonical_host)
        };
        TakenHosts {
            masters: masters.flat_map(of_master).filter(|host| !host.is_empty()).collect(),
            served: served
                .map(|row| (row.hosts.iter().map(|host| canonical_host(host)).collect(), row.addresses.as_slice()))
                .collect(),
            pools,
        }
    }

    /// Returns whether a request comes from a master's machine, which may be a worker too.
    fn is_master(&self, from: Option<IpAddr>) -> bool {
        let is_own = |from: IpAddr| self.served.iter().any(|(_, addresses)| addresses.contains(&from));
        from.is_some_and(|from| from.is_loopback() || self.masters.contains(&from.to_string()) || is_own(from))
    }

    /// Returns whether a master's serving certificate holds this host.
    fn is_served(&self, host: &str) -> bool {
        self.served.iter().any(|(hosts, _)| hosts.contains(host))
    }

    /// Returns whether only the masters with this address on their own machine serve it. A load balancer's address is
    /// on one of them at most, and all of them serve it.
    fn is_only_of_its_machine(&self, address: IpAddr) -> bool {
        let host = address.to_string();
        self.served.iter().filter(|(hosts, _)| hosts.contains(&host)).all(|(_, own)| own.contains(&address))
    }
}

/// Returns the host of `https://host:port` or `host:port`.
fn host(address: &str) -> &str {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Returns the hosts of a worker's serving certificate: its addresses, and its name unless a master has that name. A
/// renewed certificate lacks addresses that a master has got since they were signed.
///
/// # Errors
/// `Forbidden` when a host is not the worker's to have.
pub(super) fn hosts(worker: &Worker<'_>, taken: &TakenHosts<'_>) -> Result<Vec<String>, Status> {
    let name = worker.name;
    let refuse = |host: &str, why: &str| {
        let message = format!("a certificate for {host} cannot be signed for the worker {name}: {why}");
        Err(Status::new(Reason::Forbidden, message))
    };
    let from = worker.from.map(|from| from.to_canonical());
    let mut hosts = Vec::new();
    // Clients take an IPv4-mapped address for the IPv4 address in it.
    for address in worker.signing.addresses.iter().map(IpAddr::to_canonical) {
        let text = address.to_string();
        let had = worker.purpose.had(address);
        let is_master = taken.masters.contains(&text);
        // A machine may be both master and worker. It then asks from the master's address.
        if is_master && from != Some(address) {
            if had {
                continue;
            }
            return refuse(&text, "it is a master's address; give the machine's own with --node-ip");
        }
        let is_elsewhere = address.is_loopback() && from.is_some_and(|from| !from.is_loopback());
        if is_elsewhere || address.is_unspecified() {
            if had {
                continue;
            }
            return refuse(&text, "others do not reach the machine there; give its own address with --node-ip");
        }
        // The pools may have changed since. Their only address that clients expect an API server at is a served one.
        if !had && taken.pools.contains(Item::Address(address)) {
            return refuse(
                &text,
                "it is an address of Services (`service-cidr`); give the machine's own with --node-ip",
            );
        }
        // The certificates of all masters hold the loopback addresses.
        let is_own =
            is_master || address.is_loopback() || from == Some(address) && taken.is_only_of_its_machine(address);
        if !is_own && taken.is_served(&text) {
            if had {
                continue;
            }
            return refuse(
                &text,
                "the certificates of the masters hold it (`tls-names`); give the machine's own with --node-ip",
            );
        }
        hosts.push(text);
    }
    if let Some(other) = worker.signing.names.iter().find(|other| *other != name) {
        return refuse(other, "a worker's certificate holds no other name");
    }
    if is_reserved(name) {
        return Ok(hosts);
    }
    let canonical = canonical_host(name);
    let is_masters = taken.masters.contains(&canonical) || taken.is_served(&canonical);
    if is_masters && worker.purpose.is_join() && !taken.is_master(from) {
        return refuse(name, "it is a master's name; choose another with --node-name");
    }
    // Under a wildcard of the masters, workers may have their own names, but clients may expect a master there.
    let wildcard = canonical.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    if !is_masters && !wildcard.is_some_and(|wildcard| taken.is_served(&wildcard)) {
        hosts.push(name.to_owned());
    }
    Ok(hosts)
}

/// Whether clients address API servers by this name, so that no worker may have a certificate for it. An address is no
/// name: it would be signed as one.
pub(super) fn is_reserved(name: &str) -> bool {
    name == "localhost" || name == "kubernetes" || name.starts_with("kubernetes.") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use quorate_pki::{Machine, Pair};

    use super::*;

    #[test]
    fn a_worker_cannot_get_a_masters_or_a_services_certificate() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let machine = Machine::open(&Pair::new(dir.path(), "node")).expect("a key");
        let member = |name: &str, peer: &str, api: &str| Member {
            name: name.to_owned(),
            peer: peer.to_owned(),
            api: api.to_owned(),
            ..Member::default()
        };
        let masters = [
            member("m1", "10.0.0.1:2380", "https://api.example:6443"),
            member("M2", "[FD00:0::2]:2380", "https://[fd00::2]:6443"),
            member("invited", "10.0.0.3:2380", ""),
        ];
        let served = |hosts: &[&str], addresses: &[&str]| Served {
            master: String::new(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        };
        let common = ["127.0.0.1", "::1", "10.96.0.1", "LB.example", "*.wild.example", "10.0.0.100", "api.example"];
        let served = [
            served(&[&common[..], &["m1-host", "10.0.0.20"]].concat(), &["10.0.0.1", "10.0.0.20", "10.0.0.100"]),
            served(&common, &["fd00::2"]),
            // This master is known by its name alone.
            served(&["m4.example", "m4-host"], &["10.0.0.40"]),
        ];
        let pools = Pools::default();
        let taken = TakenHosts::new(masters.iter(), served.iter(), &pools);
        // The node's name, the hosts it asks for, the address it asks from, and the expected hosts of a worker that
        // joins and of one that renews.
        type Signed<'a> = Result<&'a [&'a str], &'a str>;
        let same: &[(&str, &[&str], &str, Signed<'_>)] = &[
            ("w1", &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4", "w1"])),
            ("w1", &["w1", "10.0.0.4"], "192.0.2.9", Ok(&["10.0.0.4", "w1"])),
            ("w1", &["10.0.0.1"], "10.0.0.4", Err("a master's address")),
            ("w1", &["10.0.0.1"], "::ffff:10.0.0.1", Ok(&["10.0.0.1", "w1"])),
            ("w1", &["fd00::2"], "10.0.0.4", Err("a master's address")),
            ("w1", &["10.0.0.3"], "10.0.0.4", Err("a master's address")),
            ("w1", &["m1"], "10.0.0.4", Err("no other name")),
            ("w1", &["kubernetes.default.svc"], "10.0.0.4", Err("no other name")),
            ("m1", &["10.0.0.1"], "10.0.0.1", Ok(&["10.0.0.1"])),
            ("m1-host", &["10.0.0.1"], "10.0.0.1", Ok(&["10.0.0.1"])),
            ("m1-host", &["127.0.0.1"], "127.0.0.1", Ok(&["127.0.0.1"])),
            ("w1", &["::ffff:10.0.0.1"], "10.0.0.4", Err("a master's address")),
            ("w1", &["10.0.0.100"], "10.0.0.100", Err("`tls-names`")),
            ("w1.wild.example", &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4"])),
            ("w1", &["10.96.0.1"], "10.96.0.1", Err("`service-cidr`")),
            ("w1", &["10.96.7.7"], "10.0.0.4", Err("`service-cidr`")),
            // This address of a master's machine is in its `tls-names` alone.
            ("w1", &["10.0.0.20"], "10.0.0.20", Ok(&["10.0.0.20", "w1"])),
            ("w1", &["10.0.0.20"], "10.0.0.4", Err("`tls-names`")),
            ("m4-host", &["10.0.0.40"], "10.0.0.40", Ok(&["10.0.0.40"])),
            ("w1", &["127.0.0.1"], "10.0.0.4", Err("do not reach the machine there")),
            ("w1", &["127.0.0.1"], "127.0.0.1", Ok(&["127.0.0.1", "w1"])),
            ("kubernetes.default.svc", &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4"])),
            ("10.96.0.1", &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4"])),
        ];
        let none: &[IpAddr] = &[];
        let check = |purpose: Purpose<'_>, name: &str, asked: &[&str], from: &str, expected: Signed<'_>| {
            let asked: Vec<_> = asked.iter().map(|&host| host.to_owned()).collect();
            let signing = SigningRequest::from_pem(&machine.request(&asked).expect("a request")).expect("its own");
            let from = Some(from.parse().expect("an address"));
            match (hosts(&Worker { name, signing: &signing, from, purpose }, &taken), expected) {
                (Ok(hosts), Ok(expected)) => assert_eq!(hosts, expected, "{name} {asked:?}"),
                (Err(refused), Err(part)) => assert!(refused.message.contains(part), "{refused:?}"),
                (found, expected) => panic!("{name} {asked:?} {purpose:?}: {found:?}, not {expected:?}"),
            }
        };
        for (name, asked, from, expected) in same {
            check(Purpose::Join, name, asked, from, *expected);
            check(Purpose::Renew { signed: Some(none) }, name, asked, from, *expected);
        }
        // A worker that has its name already keeps its certificates when a master gets that name.
        for name in ["m1", "m2", "invited", "lb.example", "api.example", "m1-host", "m4-host"] {
            check(Purpose::Join, name, &["10.0.0.4"], "10.0.0.4", Err("a master's name"));
            check(Purpose::Renew { signed: None }, name, &["10.0.0.4"], "10.0.0.4", Ok(&["10.0.0.4"]));
        }
        // Neither is it refused for an address that was signed before. A master's address is left out.
        let had = ["10.0.0.1", "10.0.0.100", "10.96.7.7", "10.96.0.1", "127.0.0.1"];
        let signed = had.map(|address| address.parse().expect("an address"));
        for signed in [Some(&signed[..]), None] {
            let renew = Purpose::Renew { signed };
            check(renew, "w1", &had, "10.0.0.4", Ok(&["10.96.7.7", "w1"]));
        }
    }

    #[test]
    fn hosts_are_parsed_from_addresses() {
        for (address, expected) in
            [("https://10.0.0.1:6443", "10.0.0.1"), ("m1:2380", "m1"), ("https://[fd00::1]:6443", "fd00::1"), ("", "")]
        {
            assert_eq!(canonical_host(host(address)), expected);
        }
    }
}
