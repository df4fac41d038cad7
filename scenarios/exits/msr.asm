; Model-specific registers: one that is plain storage, one that does not exist, one whose value would be wrong.
start:
        mov     ecx, 0xc0000082         ; LSTAR
        mov     eax, 0x89abcdef
        mov     edx, 0x00001234
        wrmsr
        xor     eax, eax
        xor     edx, edx
        rdmsr
        shl     rdx, 32
        lea     r12, [rdx + rax]

        xor     r15d, r15d              ; faults so far
        mov     ecx, 0x12345678
absent: rdmsr
        mov     ecx, 0xc0000082
        mov     edx, 0x12340000         ; not canonical
wrong:  wrmsr
        hlt

protection:
        pop     rax                     ; error code
        mov     rbx, [rsp]
        mov     [places + r15 * 8], rbx
        inc     r15d
        add     qword [rsp], 2          ; both instructions have two bytes
        iretq

align 8
places: dq      0, 0
