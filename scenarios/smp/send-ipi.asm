; CPU 0 sends interrupt 0x40 to CPUs 1 to 3 with one hypercall, SEND_IPI; each writes down that it came.
APIC    equ 0xfee00000
start:
        mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff
        test    edi, edi
        jnz     receiver
.wait:  pause
        cmp     dword [ready], 3
        jb      .wait
        mov     eax, 10                 ; SEND_IPI
        mov     ebx, 0b111              ; three CPUs
        xor     ecx, ecx
        mov     edx, 1                  ; from APIC id 1 on
        mov     esi, 0x40               ; fixed delivery, vector 0x40
        db      0x0f, 0x01, NATIVE
        mov     r8, rax
.done:  pause
        cmp     dword [came], 3
        jb      .done
        hlt
receiver:
        lock inc dword [ready]
        sti
.sleep: hlt
        cli
        hlt

interrupt:
        mov     dword [rbp + 0xb0], 0
        mov     byte [marks + rdi], 1
        lock inc dword [came]
        iretq

align 64
ready:  dd      0
align 64
came:   dd      0
align 64
marks:  db      0, 0, 0, 0
