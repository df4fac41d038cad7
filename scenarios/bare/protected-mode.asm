; From real mode to protected mode with a GDT of its own, and into 64-bit mode with page tables of its own.
bits 16
start:
        cli
        lgdt    [gdtr]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     0x08:protected
bits 32
protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     ss, ax
        mov     dword [0x1000], 0x2000 + 3      ; PML4, PDPT, one page directory with one page of 2 MiB
        mov     dword [0x2000], 0x3000 + 3
        mov     dword [0x3000], 0x83
        mov     eax, 1 << 5
        mov     cr4, eax
        mov     eax, 0x1000
        mov     cr3, eax
        mov     ecx, 0xc0000080
        rdmsr
        bts     eax, 8
        wrmsr
        mov     eax, cr0
        bts     eax, 31
        mov     cr0, eax
        jmp     0x18:long_mode
bits 64
long_mode:
        mov     r15, 0x1122334455667788
        hlt

align 8
gdt:    dq      0
        dq      0x00cf9b000000ffff
        dq      0x00cf93000000ffff
        dq      0x00af9b000000ffff
gdtr:   dw      gdtr - gdt - 1
        dd      gdt
