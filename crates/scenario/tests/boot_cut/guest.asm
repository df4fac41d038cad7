; A guest of several processors without a scenario: it starts the others, whose stores race with each other, takes timer interrupts, rewrites its own
; code, prints, and sleeps. What it leaves behind depends on the order of everything.
APIC    equ 0xfee00000
IDT     equ 0x20000
WORDS   equ 0xe800
start:
        mov     ebp, APIC
        mov     r13d, WORDS
        lidt    [pointer]
        mov     edi, IDT + 0x40 * 16
        mov     eax, tick
        mov     [rdi], ax
        mov     word [rdi + 2], 8
        mov     word [rdi + 4], 0x8e00
        shr     eax, 16
        mov     [rdi + 6], ax
        mov     esi, stub
        mov     edi, 0xe000
        mov     ecx, stub_end - stub
        rep movsb
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x300], 0xc4500       ; INIT to all others
        mov     ecx, 500
.pause: dec     ecx
        jnz     .pause
        mov     dword [rbp + 0x300], 0xc460e       ; SIPI, vector 0x0e
        mov     dword [rbp + 0x3e0], 0b1011        ; divide by 1
        mov     dword [rbp + 0x320], 0x20040       ; periodic, vector 0x40
        mov     dword [rbp + 0x380], PERIOD
        sti
        mov     r12d, ROUNDS
round:  mov     ecx, TURNS
turn:   add     r8d, [r13 + 16]
        inc     dword [r13 + 8]
        mov     [rel patch + 3], cl
patch:  add     r9d, 0
        dec     ecx
        jnz     turn
        mov     eax, 0x80000000
        cpuid
        mov     edx, 0x3f8
        mov     al, 'a'
        add     al, r8b
        and     al, 0x7f
        out     dx, al
        dec     r12d
        jnz     round
asleep: hlt
        cmp     word [r13 + 2], CPUS - 1
        jne     asleep
        mov     al, 10
        out     dx, al
        cli
        hlt

tick:   inc     r15d
        xor     r14, r8
        rol     r14, 7
        mov     dword [rbp + 0xb0], 0
        iretq

pointer: dw     0xfff
        dq      IDT

bits 16
stub:   mov     ax, cs
        mov     ds, ax
        mov     dx, 0x3f8
        mov     bp, ROUNDS
.round: mov     cx, AP_TURNS
.turn:  inc     word [0x808]
        mov     si, [0x808]
        add     [0x810], si
        lock inc word [0x804]
        dec     cx
        jnz     .turn
        mov     al, '-'
        out     dx, al
        dec     bp
        jnz     .round
        lock inc word [0x802]
.sleep: cli
        hlt
        jmp     .sleep
stub_end:
