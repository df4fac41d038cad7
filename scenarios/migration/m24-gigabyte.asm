; A 1-GiB page, which CPUID does not tell of: R10 is what it says, R8 and R9 what a read through the page gives at home and abroad.
start:  mov     eax, 0x80000001
        cpuid
        shr     edx, 26
        and     edx, 1
        mov     r10d, edx
        mov     rax, cr3
        mov     rbx, [rax]
        and     ebx, 0xfffff000
        mov     qword [rbx + 16], 0x83          ; 2 GiB to 3 GiB is memory from zero
        mov     eax, 0x80000000
        invlpg  [rax]
        mov     r8, [rax + word_of]
here:   nop
        mov     eax, 0x80000000
        invlpg  [rax]
        mov     r9, [rax + word_of]
        hlt
align 8
word_of: dq     0x1234
