; CPU 0 starts CPU 1 as firmware and kernels do: INIT, then two SIPIs with the page 0x0e where a real-mode stub waits.
APIC    equ 0xfee00000
start:
        mov     ebp, APIC
        mov     edi, 0xe000
        mov     esi, stub
        mov     ecx, stub_end - stub
        rep movsb
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x310], 1 << 24
        mov     dword [rbp + 0x300], 0x4500        ; INIT
        mov     ecx, 5000
.pause: dec     ecx
        jnz     .pause
        mov     dword [rbp + 0x300], 0x460e        ; SIPI, vector 0x0e
        mov     dword [rbp + 0x300], 0x460e
.wait:  pause
        cmp     word [0xe800], 0x5a5a
        jne     .wait
        mov     r8d, [0xe802]
        hlt

bits 16
stub:
        mov     ax, cs
        mov     ds, ax
        mov     word [0x802], ax
        mov     word [0x804], 0
        mov     word [0x800], 0x5a5a
        hlt
stub_end:
