; A LOCK prefix is not allowed before either instruction: no hypervisor decodes that as a hypercall.
start:
        mov     eax, 1
site:   db      0xf0, 0x0f, 0x01, FOREIGN
        hlt

undefined:
        mov     r11d, 6
        pop     r9
        hlt
