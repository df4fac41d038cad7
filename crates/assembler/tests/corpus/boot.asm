; From real mode to long mode, with tables built by hand.
bits 16
org 0x7c00
PAGES equ 0x1000
CODE64 equ gdt.code64 - gdt
start:
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, start
    mov di, PAGES
    mov cx, 0x3000 / 4
    xor eax, eax
    rep stosw
    mov dword [PAGES], PAGES + 0x1003
    mov dword [PAGES + 0x1000], PAGES + 0x2003
    mov dword [PAGES + 0x2000], 0x83
    lgdt [gdt.pointer]
    mov eax, cr4
    or eax, 1 << 5
    mov cr4, eax
    mov eax, PAGES
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or ah, 1
    wrmsr
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
    jmp CODE64:long_mode

align 8
gdt:
    dq 0
.code64:
    dw 0xffff, 0
    db 0, 10011010b, 0xaf, 0
.pointer:
    dw $ - gdt - 1
    dd gdt

bits 64
default rel
long_mode:
    mov rsp, start
    lea rsi, [message]
    mov edx, 0x3f8
.next:
    lodsb
    test al, al
    jz .done
    out dx, al
    jmp .next
.done:
    mov rax, [counter]
    inc qword [counter]
    vmcall
    hlt
    jmp .done
message db 'hello', 10, 0
align 8, db 0
counter: dq 0
times 510-($-$$) db 0
dw 0xaa55
