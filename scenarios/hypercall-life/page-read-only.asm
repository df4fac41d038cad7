; The guest's own paging makes the page read-only, before the hypervisor writes its stub there.
KVM_API_MAGIC   equ 0x87655678

start:
        mov     eax, page
        shr     eax, 12
        and     byte [PAGE_TABLE + rax * 8], 0xfd
        invlpg  [page]
        mov     ecx, KVM_API_MAGIC
        mov     eax, state
        xor     edx, edx
        wrmsr
        mov     r8d, [state.ret]
        mov     eax, 1
        call    page
        mov     r10, rax
        hlt

align 4096
state:  dd      1, 0xffffffff, 24
.ret:   dd      0xffffffff
        dq      page

align 4096
page:   times 16 db 0xcc
