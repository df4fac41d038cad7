; Hardware task switches: a far CALL of a TSS and IRET back, then #UD through a task gate. Each makes its VM exit; the hypervisor switches.
bits 32
start:
        sgdt    [table]
        mov     ebx, [table + 2]
        mov     eax, other_tss          ; a descriptor of the other task at 0x50
        mov     edx, eax
        shl     edx, 16
        or      edx, 0x67
        mov     [ebx + 0x50], edx
        mov     edx, eax
        shr     edx, 16
        and     edx, 0xff
        or      edx, 0x8900
        and     eax, 0xff000000
        or      eax, edx
        mov     [ebx + 0x54], eax
        sidt    [table]
        mov     ebx, [table + 2]
        mov     dword [ebx + 6 * 8], 0x500000
        mov     dword [ebx + 6 * 8 + 4], 0x8500         ; #UD: a task gate
        mov     esi, 1
        call    0x50:0
        inc     esi
bad:    ud2
after:  mov     eax, cr0
        and     eax, 8                  ; TS
        clts
        mov     ebx, [counter]
        hlt

other:  inc     dword [counter]         ; first by CALL
        iretd
        inc     dword [counter]         ; then by #UD, which it skips in the TSS of the first task
        mov     ebx, FIRST_TSS
        add     dword [ebx + 0x20], 2
        iretd

align 8
table:  dq 0
counter:
        dd 0
align 128
other_tss:
        dd 0, 0, 0, 0, 0, 0, 0, 0
        dd other, 2                     ; EIP, EFLAGS
        dd 0, 0, 0, 0, 0x88000, 0, 0, 0 ; ESP
        dd DATA, CODE32, DATA, DATA, 0, 0
        dd 0, 0x680000
