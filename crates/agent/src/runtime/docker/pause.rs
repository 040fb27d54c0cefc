//! The program that holds a pod's namespaces, and its image. Both are generated here, without a registry or a compiler.

use serde_json::json;
use sha2::{Digest, Sha256};

/// Name of the image on this machine.
pub(super) const IMAGE: &str = "quorate/pause";
pub(super) const TAG: &str = "1";
/// Path of the program in the image.
const PROGRAM: &str = "/pause";

/// Address at which the program's only segment is loaded.
const BASE: u64 = 0x40_0000;
const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const CODE_AT: u64 = ELF_HEADER + PROGRAM_HEADER;

/// A processor architecture of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    /// Parses Rust's name of an architecture.
    pub(super) fn of(arch: &str) -> Option<Self> {
        match arch {
            "x86_64" => Some(Architecture::X86_64),
            "aarch64" => Some(Architecture::Aarch64),
            _ => None,
        }
    }

    /// Returns the number of the architecture in ELF.
    fn number(self) -> u16 {
        match self {
            Architecture::X86_64 => 62,
            Architecture::Aarch64 => 183,
        }
    }

    fn code(self) -> Vec<u8> {
        match self {
            Architecture::X86_64 => x86_64(),
            Architecture::Aarch64 => aarch64(),
        }
    }
}

/// Returns a static ELF executable of less than 300 bytes, which waits for SIGTERM or SIGINT and then exits with 0.
///
/// The program runs as process 1 of its namespace, which has three consequences. The kernel drops signals to process 1
/// that have no handler unless they are blocked, so the program blocks both and waits for them with `rt_sigtimedwait`.
/// Orphaned processes become its children when the pod shares its process namespace, so it ignores SIGCHLD to have the
/// kernel reap them. It must not exit before it gets a signal, so it repeats a wait that was interrupted.
pub(super) fn program(machine: Architecture) -> Vec<u8> {
    let mut code = machine.code();
    // The set of SIGINT (2) and SIGTERM (15): bit n - 1 for signal n.
    code.extend((1_u64 << 1 | 1 << 14).to_le_bytes());
    // struct sigaction of the kernel: handler SIG_IGN (1), flags, restorer, mask.
    code.extend(1_u64.to_le_bytes());
    code.extend([0; 24]);

    let size = CODE_AT + code.len() as u64;
    let mut elf = elf_header(machine);
    elf.extend(program_header(size));
    elf.extend(code);
    elf
}

/// Machine code. The set of signals follows the code, and the action is 8 bytes later.
fn x86_64() -> Vec<u8> {
    const LENGTH: u64 = 82;
    let signals = (BASE + CODE_AT + LENGTH) as u32;
    let action = signals + 8;
    let mut code: Vec<u8> = Vec::new();
    // rt_sigaction(SIGCHLD = 17, &action, NULL, 8)
    code.extend([0xb8, 13, 0, 0, 0]); // mov eax, 13
    code.extend([0xbf, 17, 0, 0, 0]); // mov edi, 17
    code.push(0xbe); // mov esi, action
    code.extend(action.to_le_bytes());
    code.extend([0x31, 0xd2]); // xor edx, edx
    code.extend([0x41, 0xba, 8, 0, 0, 0]); // mov r10d, 8
    code.extend([0x0f, 0x05]); // syscall
    // rt_sigprocmask(SIG_BLOCK = 0, &signals, NULL, 8)
    code.extend([0xb8, 14, 0, 0, 0]); // mov eax, 14
    code.extend([0x31, 0xff]); // xor edi, edi
    code.push(0xbe); // mov esi, signals
    code.extend(signals.to_le_bytes());
    code.extend([0x31, 0xd2]); // xor edx, edx
    code.extend([0x41, 0xba, 8, 0, 0, 0]); // mov r10d, 8
    code.extend([0x0f, 0x05]); // syscall
    // again: rt_sigtimedwait(&signals, NULL, NULL, 8)
    let again = code.len();
    code.extend([0xb8, 128, 0, 0, 0]); // mov eax, 128
    code.push(0xbf); // mov edi, signals
    code.extend(signals.to_le_bytes());
    code.extend([0x31, 0xf6]); // xor esi, esi
    code.extend([0x31, 0xd2]); // xor edx, edx
    code.extend([0x41, 0xba, 8, 0, 0, 0]); // mov r10d, 8
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0x85, 0xc0]); // test eax, eax
    let back = again as i64 - (code.len() as i64 + 2);
    code.extend([0x78, back as i8 as u8]); // js again
    // exit(0)
    code.extend([0xb8, 60, 0, 0, 0]); // mov eax, 60
    code.extend([0x31, 0xff]); // xor edi, edi
    code.extend([0x0f, 0x05]); // syscall
    assert_eq!(code.len() as u64, LENGTH, "the data's address depends on the code's length");
    code
}

/// Machine code with the same calls. Addresses are relative to the instruction.
fn aarch64() -> Vec<u8> {
    const MOV_X2_0: u32 = 0xd280_0002;
    const MOV_X3_8: u32 = 0xd280_0103;
    const SVC: u32 = 0xd400_0001;
    let instructions: [u32; 22] = [
        // rt_sigaction(SIGCHLD = 17, &action, NULL, 8)
        0xd280_0220, // mov x0, 17
        0x1000_02e1, // adr x1, action
        MOV_X2_0,
        MOV_X3_8,
        0xd280_10c8, // mov x8, 134
        SVC,
        // rt_sigprocmask(SIG_BLOCK = 0, &signals, NULL, 8)
        0xd280_0000, // mov x0, 0
        0x1000_01e1, // adr x1, signals
        MOV_X2_0,
        MOV_X3_8,
        0xd280_10e8, // mov x8, 135
        SVC,
        // again: rt_sigtimedwait(&signals, NULL, NULL, 8)
        0x1000_0140, // adr x0, signals
        0xd280_0001, // mov x1, 0
        MOV_X2_0,
        MOV_X3_8,
        0xd280_1128, // mov x8, 137
        SVC,
        0xb7ff_ff40, // tbnz x0, 63, again
        // exit(0)
        0xd280_0000, // mov x0, 0
        0xd280_0ba8, // mov x8, 93
        SVC,
    ];
    instructions.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn elf_header(machine: Architecture) -> Vec<u8> {
    let mut header: Vec<u8> = Vec::with_capacity(ELF_HEADER as usize);
    header.extend(b"\x7fELF");
    header.extend([2, 1, 1, 0]); // 64 bit, little endian, version 1, System V
    header.extend([0; 8]);
    header.extend(2_u16.to_le_bytes()); // an executable
    header.extend(machine.number().to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    header.extend((BASE + CODE_AT).to_le_bytes()); // entry point
    header.extend(ELF_HEADER.to_le_bytes()); // program headers follow
    header.extend(0_u64.to_le_bytes()); // no sections
    header.extend(0_u32.to_le_bytes()); // flags
    header.extend((ELF_HEADER as u16).to_le_bytes());
    header.extend((PROGRAM_HEADER as u16).to_le_bytes());
    header.extend(1_u16.to_le_bytes()); // one program header
    header.extend([0; 6]); // no section headers
    header
}

fn program_header(size: u64) -> Vec<u8> {
    let mut header: Vec<u8> = Vec::with_capacity(PROGRAM_HEADER as usize);
    header.extend(1_u32.to_le_bytes()); // to be loaded
    header.extend(5_u32.to_le_bytes()); // readable and executable
    header.extend(0_u64.to_le_bytes()); // the whole file
    header.extend(BASE.to_le_bytes());
    header.extend(BASE.to_le_bytes());
    header.extend(size.to_le_bytes());
    header.extend(size.to_le_bytes());
    header.extend(0x1_0000_u64.to_le_bytes()); // alignment: the largest page size of these architectures
    header
}

/// Returns the image in the format of `docker load`. Its bytes never change, so agents that load it concurrently make
/// one image.
pub(super) fn image(machine: Architecture) -> Vec<u8> {
    let layer = archive(&[(PROGRAM.trim_start_matches('/'), &program(machine))]);
    let digest = format!("sha256:{:x}", Sha256::digest(&layer));
    let config = json!({
        "architecture": quorate_api::architecture(std::env::consts::ARCH), "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": [PROGRAM] },
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    });
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [format!("{IMAGE}:{TAG}")], "Layers": ["layer.tar"] }]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    archive(&[("manifest.json", manifest.as_bytes()), ("config.json", config.as_bytes()), ("layer.tar", &layer)])
}

/// Makes a tar archive (ustar) with executables in its root.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000755\0"); // mode
        put(108, b"0000000\0"); // uid
        put(116, b"0000000\0"); // gid
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0"); // modified in 1970, so that the archive is always the same
        put(148, b"        "); // the checksum counts as blanks
        put(156, b"0"); // a regular file
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_program_runs_until_it_gets_a_signal() {
        let machine = Architecture::of(std::env::consts::ARCH).expect("tests run on a machine that has the program");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pause");
        std::fs::write(&path, program(machine)).expect("the program is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("and made executable");
        let mut child = Command::new(&path).spawn().expect("the program starts");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        // Continuing a stopped process interrupts its wait, which the program must repeat.
        for signal in [nix::sys::signal::SIGSTOP, nix::sys::signal::SIGCONT] {
            nix::sys::signal::kill(pid, signal).expect("the signal is sent");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(child.try_wait().expect("the process can be waited for").is_none(), "it ended by itself");
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("the signal is sent");
        let status = child.wait().expect("it ends");
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }

    #[test]
    fn the_archive_is_read_by_tar() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("image.tar");
        let files: [(&str, &[u8]); 2] = [("pause", b"content"), ("other", &[7; 1024])];
        std::fs::write(&path, archive(&files)).expect("the archive is written");
        let output = Command::new("tar").arg("xf").arg(&path).arg("-C").arg(dir.path()).output().expect("tar runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for (name, content) in files {
            assert_eq!(std::fs::read(dir.path().join(name)).expect("the file is there"), content);
        }
    }
}
