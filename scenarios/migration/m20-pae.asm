; PAE paging. The second entry of the page-directory-pointer table is changed in memory, and CR3 is not loaded again. EBX, ECX, EDX: what
; the second gigabyte shows before the change, behind it, and after a move.
TABLE   equ     0x80000
LOW     equ     0x81000
FIRST   equ     0x82000
SECOND  equ     0x83000
start:
        mov     dword [TABLE], LOW | 1
        mov     dword [TABLE + 8], FIRST | 1
        mov     dword [LOW], 0x83
        mov     dword [FIRST], 0x200083
        mov     dword [SECOND], 0x400083
        mov     dword [0x200000], 0xaaaa
        mov     dword [0x400000], 0xbbbb
        mov     eax, TABLE
        mov     cr3, eax
        mov     eax, cr4
        or      eax, 0x20
        mov     cr4, eax
        mov     eax, cr0
        or      eax, 0x80000000
        mov     cr0, eax
        mov     ebx, [0x40000000]
        mov     dword [TABLE + 8], SECOND | 1
        invlpg  [0x40000000]
        mov     ecx, [0x40000000]
here:   nop
        invlpg  [0x40000000]
        mov     edx, [0x40000000]
        hlt
