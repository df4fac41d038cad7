mov rax, 1
mov rax, 0xffffffff
mov rax, -1
mov rax, .lab|.lab: nop
mov rax, dword .lab|.lab: nop
mov rax, strict dword 1
mov eax, [.lab]|.lab: nop
mov rax, [.lab]|.lab: nop
mov rax, [rel .lab]|.lab: nop
mov rax, [qword .lab]|.lab: nop
mov [qword 0x1122334455667788], al
push .lab|.lab: nop
add rax, .lab|.lab: nop
add eax, .lab|.lab: nop
xchg eax, eax
xchg ecx, edx
xchg rcx, [rdx]
xchg [rdx], rcx
xchg al, bl
xchg rax, rax
mov ds, ax
mov ds, eax
mov ds, rax
mov ax, ds
mov eax, ds
mov rax, ds
mov [rax], ds
ltr ax
str ax
str eax
str rax
lldt ax
sldt rax
smsw rax
lmsw ax
verr ax
lar eax, bx
lar eax, ebx
lar rax, bx
lsl rax, rbx
cvtsi2sd xmm0, [rax]
jmp [rax]
call [rax]
jmp far [rax]
jmp far dword [rax]
jmp far qword [rax]
jmp far word [rax]
lgdt [rax]
fldenv [rax]
push dword 5
push qword 5
push word 5
push strict dword 5
push 0x80
add ax, 0xffff
add eax, 0xffffffff
add [rax], byte 5
add [rax], word 5
add eax, byte 5
add eax, strict dword 5
iret
iretw
iretd
iretq
retf
retfq
o64 retf
o64 sysret
sysret
sysexit
pushf
pushfq
pushfw
mov [ds:rax], eax
mov [fs:rax], eax
mov [cs:rax], eax
mov [fs:eax], ax
lock add [fs:eax], ax
movss [fs:eax], xmm0
rep movsw
a32 rep movsw
a32 movsb
movsd
fs lodsw
rep fs lodsw
mov eax, [rax*2]
mov eax, [rax*3]
mov eax, [rax*5+4]
mov eax, [rbp+rax]
mov eax, [rax+rbp]
mov eax, [rbp+rax*1]
mov eax, [rax*1+rbp]
mov eax, [rsp+rax]
mov eax, [rax+rsp]
mov eax, [rax*4]
mov eax, [nosplit rax*2]
mov eax, [r13]
mov eax, [r13+rax]
mov eax, [r12]
mov eax, [byte rax+5]
mov eax, [dword rax+5]
mov eax, [eax+0xfffffff0]
mov eax, [rbx*2+rbx]
vmread rax, rbx
vmread [rax], rbx
vmrun
invlpga rax, ecx
invlpga eax, ecx
invlpga
vmptrld [rax]
invept rax, [rbx]
skinit
monitor
monitor rax, ecx, edx
mwait
mwait eax, ecx
clzero rax
clzero
jmp .lab|times 200 nop|.lab: nop
jmp short $
jmp near $
jmp $
jmp strict near $
call $
jrcxz $
jecxz $
loop $
loop $, ecx
a32 loop $
times 2 jmp $
o16 ret
o16 jmp $
in eax, dx
in al, 5
out dx, ax
out 0x80, al
xlatb
int3
int 3
nop
pause
imul eax, 5
imul eax, ebx, 500
imul rax, 5
shl eax, 1
shl eax, cl
shl eax, 5
sal eax, 5
test eax, [rbx]
test [rbx], eax
cmp al, 5
movq xmm0, rax
movq rax, xmm0
movq xmm0, [rax]
movd xmm0, eax
movd eax, xmm0
movsx eax, al
movsxd rax, ecx
movsx rax, ecx
movsx rax, dword [rcx]
fadd st1
fadd st0, st1
fadd st1, st0
fadd to st1
faddp
faddp st1
fadd
fxch
fxch st1
enter 5, 1
mov eax, -1
mov al, 255
mov al, -1
lea eax, [rbx+5]
lea rax, [.lab]|.lab: nop
lea rax, [rel .lab]|.lab: nop
mov rax, [fs:0x28]
mov rax, [gs:.lab]|.lab: nop
mov rax, [rel fs:.lab]|.lab: nop
default rel|mov rax,[.lab]|mov rax,[fs:.lab]|mov rax,[abs .lab]|mov rax,[rbx+.lab]|.lab:|default abs
mov rax, cr8
mov cr8, rax
mov rax, dr7
int 0x80
out 5, eax
bswap eax
crc32 eax, bl
crc32 rax, bl
movbe eax, [rax]
popcnt eax, ebx
cmpxchg8b [rax]
cmpxchg16b [rax]
lock cmpxchg16b [rax]
xsave [rax]
xsave64 [rax]
fxsave64 [rax]
rdfsbase rax
wrmsr
rdtscp
swapgs
clac
endbr64
vmxon [rax]
vmclear [rax]
movnti [rax], ebx
nop dword [rax]
nop eax
ud1 eax, ebx
ud2
call far [rax]
lfs rax, [rbx]
cmpeqps xmm0, xmm1
push fs
pop gs
movapd [fs:eax], xmm0
invept rax, [fs:ebx]
crc32 eax, word [fs:ebx]
popcnt ax, [fs:ebx]
mov rax, qword 1
mov rax, strict qword 1
mov rax, 0x100000000
mov rax, -0x80000000
mov rax, dword 1
mov r8, 5
mov qword [rax], -1
o64 nop
o64 push rax
o16 nop
a32 nop
o32 nop
fs nop
lock nop
rep nop
repne scasd
jz 0x7c10
loop $ - 0x10
call 0x7c10
xchg r8, rax
xchg rax, r8
xchg r8, r9
adc al, [rax]
movq mm0, mm1
movq mm0, rax
movq xmm0, xmm1
movq [rax], xmm1
movq [rax], mm1
movd [rax], xmm1
pextrw eax, xmm0, 1
pextrw [rax], xmm0, 1
vmovaps ymm0, ymm1
vaddps zmm0, zmm1, zmm2
vaddps xmm16, xmm1, xmm2
blendvps xmm0, xmm1, xmm0
blendvps xmm0, xmm1
sha256rnds2 xmm0, xmm1
call qword [rax]
jmp qword [rax]
jmp rax
fcmovb st0, st1
fcmovb st1
fstsw ax
fnstsw ax
fst st1
ffree st1
fucomi st1
fcomip st0, st1
fsubp st1, st0
fsubrp
fsub
fisttp qword [rax]
fbstp [rax]
fbstp tword [rax]
mov byte [rel .lab], 5|.lab:
mov dword [rel .lab+4], 5|.lab:
cmp dword [rel .lab], 500|.lab:
bts dword [rel .lab], 5|.lab:
lea rax, [rel $]
lea rax, [rel $$]
dq $, $$, .lab-$$|.lab:
push qword [rax]
pop qword [rax]
push word [rax]
movsx eax, word [rax]
movzx rax, byte [rax]
in al, dx
and rax, 0xfffffffffffffff0
and rax, ~0xf
and eax, 0xfffffff0
test al, 0x80
imul eax, [rbx], 5
imul eax, ebx
imul ebx
imul rax, rbx, -1
sub rsp, 128
add rsp, -128
lea rsp, [rsp-8]
mov [rsp+8], rax
mov rax, [rsp+rbp*8+0x1000]
mov rax, [r13+r12*4]
mov rax, [rbp]
mov rax, [r12+r13]
mov rax, [rsi+rdi*8-8]
mov rax, [abs 5]
mov al, [5]
mov eax, [dword 5]
mov eax, [eax]
bt rax, 5
ret 8
retf 8
enter 0x10, 0
int 0xff
out 0xff, al
str [rax]
sldt [rax]
smsw [rax]
sgdt [rax]
invlpg [rax]
rdmsr
cpuid
movdir64b rax, [rbx]
maskmovdqu xmm0, xmm1
vpgatherdd xmm0, [rax+xmm1*4], xmm2
kmovw k1, eax
verw [rax]
lea eax, [rel .lab]|.lab:
xbegin .lab|.lab:
xabort 5
tpause eax
umonitor rax
wbinvd
encls
getsec
lfence
endbr32
rdpid rax
mov dword [rax], 'abc'
cs nop
ds nop
es mov eax, [rbx]
mov rax, .lab-$$|.lab:
add rax, .b-.a|.a: times 200 nop|.b:
mov eax, [rbx+.b-.a]|.a: times 127 nop|.b:
mov eax, [rbx+.b-.a]|.a: times 128 nop|.b:
jmp .a|times 125 nop|jmp .b|.a: nop|times 126 nop|.b:
.a: times 126 nop|jmp .a
.a: times 127 nop|jmp .a
jnz .a|times 127 nop|.a: loop .a
stgi
clgi
vmcall
vmmcall
vmlaunch
vmresume
vmxoff
vmfunc
vmptrst [rax]
vmwrite rax, [rbx]
vmwrite rax, rbx
invvpid rax, [rbx]
hlt
sti
cli
std
cld
syscall
sysenter
lahf
sahf
leave
cqo
cdqe
cwde
cdq
cbw
cwd
shld [rax], ebx, cl
shrd rax, rbx, 5
rol byte [rax], 1
rcr word [rax], 3
not dword [rax]
neg rax
mul byte [rax]
div rbx
idiv dword [rax]
setc [rax]
cmovnbe eax, [rax]
bsf eax, ebx
bsr rax, [rbx]
lzcnt eax, ebx
tzcnt rax, rbx
andn eax, ebx, ecx
blsr rax, rbx
bextr rax, rbx, rcx
rorx eax, ebx, 5
sarx eax, [rbx], ecx
adcx eax, ebx
adox rax, [rbx]
movups xmm0, [rax]
movupd [rax], xmm8
movaps xmm8, xmm9
movdqa xmm0, [rax]
movdqu [rax+r8*2], xmm15
movntdq [rax], xmm1
pxor xmm0, xmm0
paddd xmm1, [rax]
pshufd xmm0, xmm1, 0x1b
psrldq xmm0, 8
psllw xmm0, 3
cvtdq2ps xmm0, xmm1
cvtsi2sd xmm0, rax
cvttsd2si rax, xmm0
sqrtsd xmm0, [rax]
comisd xmm0, [rax]
ldmxcsr [rax]
stmxcsr [rax]
fxsave [rax]
fxrstor [rax]
xrstor [rax]
xgetbv
xsetbv
xsaveopt [rax]
mfence
sfence
prefetchw [rax]
prefetcht0 [rax]
clflushopt [rax]
movmskps eax, xmm0
pmovmskb eax, xmm0
shufps xmm0, xmm1, 5
unpcklps xmm0, xmm1
movhlps xmm0, xmm1
movlps [rax], xmm0
movhps xmm0, [rax]
movss xmm0, xmm1
movsd xmm0, xmm1
movsd [rax], xmm1
emms
a32 mov al, [5]
a32 mov bl, [5]
a32 mov eax, [0x80000000]
popcnt r13d, ecx
popcnt eax, ecx
lzcnt r8, r9
tzcnt r8d, [rax]
