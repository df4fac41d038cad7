//! The names that Linux gives the fields of a VMCS and a VMCB, where they are not the manual's: what is written in one's own hypervisor is often copied.
//!
//! Modelled: `enum vmcs_field` of arch/x86/include/asm/vmx.h, `struct vmcb_control_area` and `vmcb_save_area` of asm/svm.h, Linux 6.12. Not modelled: names
//! that differ from ours in case and separators only.

use crate::spelling::plain;
use isa::vmx::VmcsField;

/// Name and encoding.
const VMCS: &[(&str, u16)] = &[
    ("VIRTUAL_PROCESSOR_ID", 0x0000),
    ("POSTED_INTR_NV", 0x0002),
    ("LAST_PID_POINTER_INDEX", 0x0008),
    ("GUEST_INTR_STATUS", 0x0810),
    ("GUEST_PML_INDEX", 0x0812),
    ("IO_BITMAP_A", 0x2000),
    ("IO_BITMAP_B", 0x2002),
    ("MSR_BITMAP", 0x2004),
    ("VM_EXIT_MSR_STORE_ADDR", 0x2006),
    ("VM_EXIT_MSR_LOAD_ADDR", 0x2008),
    ("VM_ENTRY_MSR_LOAD_ADDR", 0x200a),
    ("VIRTUAL_APIC_PAGE_ADDR", 0x2012),
    ("APIC_ACCESS_ADDR", 0x2014),
    ("POSTED_INTR_DESC_ADDR", 0x2016),
    ("VM_FUNCTION_CONTROL", 0x2018),
    ("EPTP_LIST_ADDRESS", 0x2024),
    ("VMREAD_BITMAP", 0x2026),
    ("VMWRITE_BITMAP", 0x2028),
    ("VE_INFORMATION_ADDRESS", 0x202a),
    ("XSS_EXIT_BITMAP", 0x202c),
    ("TERTIARY_VM_EXEC_CONTROL", 0x2034),
    ("PID_POINTER_TABLE", 0x2042),
    ("GUEST_IA32_DEBUGCTL", 0x2802),
    ("GUEST_IA32_PAT", 0x2804),
    ("GUEST_IA32_EFER", 0x2806),
    ("GUEST_IA32_PERF_GLOBAL_CTRL", 0x2808),
    ("GUEST_PDPTR0", 0x280a),
    ("GUEST_PDPTR1", 0x280c),
    ("GUEST_PDPTR2", 0x280e),
    ("GUEST_PDPTR3", 0x2810),
    ("GUEST_IA32_RTIT_CTL", 0x2814),
    ("HOST_IA32_PAT", 0x2c00),
    ("HOST_IA32_EFER", 0x2c02),
    ("HOST_IA32_PERF_GLOBAL_CTRL", 0x2c04),
    ("PIN_BASED_VM_EXEC_CONTROL", 0x4000),
    ("CPU_BASED_VM_EXEC_CONTROL", 0x4002),
    ("VM_EXIT_CONTROLS", 0x400c),
    ("VM_EXIT_MSR_STORE_COUNT", 0x400e),
    ("VM_EXIT_MSR_LOAD_COUNT", 0x4010),
    ("VM_ENTRY_CONTROLS", 0x4012),
    ("VM_ENTRY_MSR_LOAD_COUNT", 0x4014),
    ("VM_ENTRY_INTR_INFO_FIELD", 0x4016),
    ("VM_ENTRY_EXCEPTION_ERROR_CODE", 0x4018),
    ("VM_ENTRY_INSTRUCTION_LEN", 0x401a),
    ("SECONDARY_VM_EXEC_CONTROL", 0x401e),
    ("NOTIFY_WINDOW", 0x4024),
    ("VM_EXIT_REASON", 0x4402),
    ("VM_EXIT_INTR_INFO", 0x4404),
    ("VM_EXIT_INTR_ERROR_CODE", 0x4406),
    ("IDT_VECTORING_INFO_FIELD", 0x4408),
    ("VM_EXIT_INSTRUCTION_LEN", 0x440c),
    ("VMX_INSTRUCTION_INFO", 0x440e),
    ("GUEST_ES_AR_BYTES", 0x4814),
    ("GUEST_CS_AR_BYTES", 0x4816),
    ("GUEST_SS_AR_BYTES", 0x4818),
    ("GUEST_DS_AR_BYTES", 0x481a),
    ("GUEST_FS_AR_BYTES", 0x481c),
    ("GUEST_GS_AR_BYTES", 0x481e),
    ("GUEST_LDTR_AR_BYTES", 0x4820),
    ("GUEST_TR_AR_BYTES", 0x4822),
    ("GUEST_INTERRUPTIBILITY_INFO", 0x4824),
    ("GUEST_SYSENTER_CS", 0x482a),
    ("HOST_IA32_SYSENTER_CS", 0x4c00),
    ("HOST_IA32_SYSENTER_ESP", 0x6c10),
    ("HOST_IA32_SYSENTER_EIP", 0x6c12),
    ("GUEST_PENDING_DBG_EXCEPTIONS", 0x6822),
    ("GUEST_INTR_SSP_TABLE", 0x682c),
    ("HOST_INTR_SSP_TABLE", 0x6c1c),
];

/// Name, and that of the word.
const VMCB: &[(&str, &str)] = &[
    ("pause_filter_thresh", "PAUSE_FILTER_THRESHOLD"),
    ("asid", "GUEST_ASID"),
    ("tlb_ctl", "TLB_CONTROL"),
    ("int_state", "INTERRUPT_SHADOW"),
    ("nested_ctl", "NP_CONTROL"),
    ("nested_cr3", "N_CR3"),
    ("clean", "VMCB_CLEAN"),
    ("next_rip", "NRIP"),
];

/// The field of a VMCS that Linux calls so.
pub fn vmcs_field(name: &str) -> Option<VmcsField> {
    let wanted = plain(name);
    VMCS.iter().find(|(linux, _)| plain(linux) == wanted).and_then(|(_, encoding)| VmcsField::from_encoding(*encoding))
}

/// The word of a VMCB that Linux calls so; the names of its two structs in front are left out.
pub fn vmcb_word(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let start = ["control.", "save."].iter().find(|area| lower.starts_with(**area)).map_or(0, |area| area.len());
    let name = name.get(start..).unwrap_or(name);
    let wanted = plain(name);
    VMCB.iter().find(|(linux, _)| plain(linux) == wanted).map_or(name, |(_, word)| *word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isa::svm::VmcbField;

    #[test]
    fn every_name_is_that_of_a_field_and_says_something_new() {
        for (name, encoding) in VMCS {
            let field = VmcsField::from_encoding(*encoding).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(vmcs_field(name), Some(field), "{name}");
        }
        for (name, word) in VMCB {
            assert!(VmcbField::find(word).is_some(), "{word}");
            assert_eq!(vmcb_word(&format!("control.{name}")), *word);
        }
        assert_eq!(vmcb_word("save.cs.selector"), "cs.selector");
    }
}
