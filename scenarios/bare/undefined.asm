; Outside of VMX operation and with SVM off, both hypercall instructions are undefined.
start:
        xor     r15d, r15d
first:  vmcall
second: vmmcall
        hlt

undefined:
        mov     rax, [rsp]
        mov     [places + r15 * 8], rax
        inc     r15d
        add     qword [rsp], 3
        iretq

align 8
places: dq      0, 0
