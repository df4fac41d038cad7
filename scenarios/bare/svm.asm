; The guest is a hypervisor itself: it turns SVM on, fills a VMCB and runs a guest of its own, which makes three hypercalls
; and halts. R15 counts the hypercalls, R9 is the last exit code.
start:
        mov     ecx, 0xc0000080         ; EFER.SVME
        rdmsr
        bts     eax, 12
        wrmsr
        mov     [vmcb + 0x4d0], eax     ; the guest's EFER has it too
        mov     ecx, 0xc0010117         ; VM_HSAVE_PA
        mov     eax, host_save
        xor     edx, edx
        wrmsr

        mov     dword [vmcb + 0x00c], 1 << 24           ; intercept HLT
        mov     dword [vmcb + 0x010], 0b11              ; and VMRUN and VMMCALL
        mov     dword [vmcb + 0x058], 1                 ; ASID
        mov     word [vmcb + 0x410], CODE64             ; CS: selector, attributes, limit
        mov     word [vmcb + 0x412], 0x29b
        mov     dword [vmcb + 0x414], 0xffffffff
        mov     edi, vmcb + 0x400                       ; ES
        call    data_segment
        mov     edi, vmcb + 0x420                       ; SS
        call    data_segment
        mov     edi, vmcb + 0x430                       ; DS
        call    data_segment
        mov     rax, cr4
        mov     [vmcb + 0x548], rax
        mov     rax, cr3
        mov     [vmcb + 0x550], rax
        mov     rax, cr0
        mov     [vmcb + 0x558], rax
        mov     qword [vmcb + 0x560], 0x400             ; DR7
        mov     dword [vmcb + 0x568], 0xffff0ff0        ; DR6
        mov     qword [vmcb + 0x570], 2                 ; RFLAGS
        mov     qword [vmcb + 0x578], guest             ; RIP
        mov     qword [vmcb + 0x5d8], 0x70000           ; RSP
again:
        mov     eax, vmcb
        vmrun
        mov     r9, [vmcb + 0x070]
        cmp     r9d, 0x81                               ; VMMCALL
        jne     done
        inc     r15d
        add     qword [vmcb + 0x578], 3
        jmp     again
done:   hlt

data_segment:
        mov     word [rdi], DATA
        mov     word [rdi + 2], 0xc93
        mov     dword [rdi + 4], 0xffffffff
        ret

guest:
        mov     ecx, TURNS
.loop:  vmmcall
        dec     ecx
        jnz     .loop
        hlt

align 4096
vmcb:   times 4096 db 0
host_save:
        times 4096 db 0
