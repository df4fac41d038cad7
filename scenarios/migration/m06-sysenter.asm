; SYSENTER_EIP gets a value that needs all 64 bits, as a 64-bit Intel kernel has it; then the machine moves to AMD.
start:
        mov     ecx, 0x176              ; SYSENTER_EIP
        mov     eax, 0x80001234
        mov     edx, 0xffffffff
        wrmsr
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        mov     ecx, 0x176
        rdmsr
        shl     rdx, 32
        lea     r8, [rdx + rax]
        hlt
