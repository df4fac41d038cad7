; The scheme before the commit of 2007: the guest registers a page, the hypervisor writes its own instruction and a RET into
; it, and the guest calls the page instead of executing any hypercall instruction of its own.
KVM_API_MAGIC   equ 0x87655678

start:
        mov     ecx, KVM_API_MAGIC
        mov     eax, state              ; page-aligned guest-physical address of the state
        xor     edx, edx
        wrmsr
        mov     r8d, [state.ret]        ; 0: the hypervisor took it
        mov     r9d, [state.host]       ; the version it speaks

        mov     eax, 1
        call    page
        mov     r10, rax
        hlt

align 4096
state:
.guest: dd      1                       ; version of the guest
.host:  dd      0xffffffff              ; version of the host, filled in
        dd      24                      ; size of this structure
.ret:   dd      0xffffffff              ; result, filled in
        dq      page                    ; where the stub goes

align 4096
page:
        times 16 db 0xcc
