# The last step of every command in a guest (GNU as, x86-64 Linux). No compiler is needed where banger is installed:
# become.hex beside it is this file assembled; scripts/assemble.py makes it, and a test compares the two.
#
#   become CGROUP UID GID GROUPS PROGRAM ARGV0 [ARGUMENT...]
#
# Joins CGROUP (made if need be; empty for none) as the leader of a session, gives the standard streams to UID, becomes
# UID, GID and GROUPS (numbers, with commas between them), and executes PROGRAM. Nothing else is tried when that fails:
# shells and execvp(3) would run a file of an unknown format as a shell script.
#
# Exit status: 125 the credentials cannot be had, 127 there is no such program, 126 it cannot be executed.
        .intel_syntax noprefix

        .equ    WRITE, 1
        .equ    OPEN, 2
        .equ    FSTAT, 5
        .equ    EXECVE, 59
        .equ    EXIT, 60
        .equ    MKDIR, 83
        .equ    FCHOWN, 93
        .equ    SETUID, 105
        .equ    SETGID, 106
        .equ    SETSID, 112
        .equ    SETGROUPS, 116
        .equ    GETDENTS64, 217
        .equ    UNLINKAT, 263

        .equ    O_WRONLY, 1
        .equ    O_DIRECTORY, 0x10000
        .equ    O_CLOEXEC, 0x80000
        .equ    AT_REMOVEDIR, 0x200
        .equ    DT_DIR, 4
        .equ    ENOENT, 2

        .equ    STAT_UID, 28            # struct stat
        .equ    STAT_RDEV, 40
        .equ    NULL_DEVICE, 0x103      # /dev/null: everybody's
        .equ    DIRENT_LENGTH, 16       # struct linux_dirent64
        .equ    DIRENT_TYPE, 18
        .equ    DIRENT_NAME, 19

        .equ    MOST_PATH, 4000
        .equ    BUFFER, 4096            # two of them on the stack: a path, and what is read
        .equ    MOST_GROUPS, 1024
        .equ    ATTEMPTS, 64

        .equ    ARG_CGROUP, 16          # offsets from r12, where argc is
        .equ    ARG_UID, 24
        .equ    ARG_GID, 32
        .equ    ARG_GROUPS, 40
        .equ    ARG_PROGRAM, 48
        .equ    ARG_ARGV0, 56

        .globl  _start
        .text
_start: mov     r12, rsp
        sub     rsp, 2 * BUFFER
        cmp     qword ptr [r12], 7
        jb      refuse
        mov     eax, SETSID             # fails for whoever leads one: as good
        syscall
        mov     rsi, [r12 + ARG_CGROUP]
        cmp     byte ptr [rsi], 0
        je      own

# -- the cgroup: every sibling that has become empty is removed, then this one is made and joined.
        mov     rdi, rsp
        lea     r8, [rsp + MOST_PATH]
copy:   lodsb
        stosb
        cmp     al, '/'
        cmove   rdx, rdi                # rdx: behind the last slash
        cmp     rdi, r8
        je      own
        test    al, al
        jnz     copy
        lea     r13, [rdi - 1]          # r13: the end of the path; "/cgroup.procs" goes there
        lea     rsi, [rip + procs]
        mov     ecx, 14
        rep movsb
        mov     byte ptr [rdx - 1], 0
        mov     rbp, rdx
        mov     rdi, rsp
        mov     esi, O_DIRECTORY | O_CLOEXEC
        mov     eax, OPEN
        syscall
        mov     byte ptr [rbp - 1], '/'
        mov     ebx, eax
        test    eax, eax
        js      own
sweep:  mov     edi, ebx
        lea     rsi, [rsp + BUFFER]
        mov     edx, BUFFER
        mov     eax, GETDENTS64
        syscall
        test    eax, eax
        jle     swept
        lea     r14, [rsp + BUFFER]
        lea     r15, [r14 + rax]
entry:  cmp     byte ptr [r14 + DIRENT_TYPE], DT_DIR
        jne     next
        cmp     byte ptr [r14 + DIRENT_NAME], '.'
        je      next
        mov     edi, ebx
        lea     rsi, [r14 + DIRENT_NAME]
        mov     edx, AT_REMOVEDIR
        mov     eax, UNLINKAT
        syscall
next:   movzx   eax, word ptr [r14 + DIRENT_LENGTH]
        add     r14, rax
        cmp     r14, r15
        jb      entry
        jmp     sweep
swept:  mov     ebp, ATTEMPTS           # another command's sweep may come between making and joining
join:   mov     byte ptr [r13], 0
        mov     rdi, rsp
        mov     esi, 0755
        mov     eax, MKDIR
        syscall
        mov     byte ptr [r13], '/'
        mov     rdi, rsp
        mov     esi, O_WRONLY | O_CLOEXEC
        mov     eax, OPEN
        syscall
        test    eax, eax
        js      again
        mov     edi, eax
        lea     rsi, [rip + zero]
        mov     edx, 1
        mov     eax, WRITE
        syscall
        test    eax, eax
        jns     own
again:  dec     ebp
        jnz     join

# -- the standard streams: as in a container, so that /dev/stdout can be opened by whoever writes to it.
own:    mov     rsi, [r12 + ARG_UID]
        call    number
        mov     r13d, eax               # r13d: the user
        mov     rsi, [r12 + ARG_GID]
        call    number
        mov     r14d, eax               # r14d: the group
        mov     ebx, 2
stream: mov     edi, ebx
        mov     rsi, rsp
        mov     eax, FSTAT
        syscall
        test    eax, eax
        js      owned
        cmp     [rsp + STAT_UID], r13d
        je      owned
        cmp     qword ptr [rsp + STAT_RDEV], NULL_DEVICE
        je      owned
        mov     edi, ebx
        mov     esi, r13d
        or      edx, -1
        mov     eax, FCHOWN
        syscall
owned:  dec     ebx
        jns     stream

# -- the credentials
        mov     rsi, [r12 + ARG_GROUPS]
        xor     ebx, ebx                # ebx: how many groups there are
group:  cmp     byte ptr [rsi], 0
        je      groups
        call    number
        mov     [rsp + 4 * rbx], eax
        inc     ebx
        cmp     ebx, MOST_GROUPS
        je      groups
        cmp     byte ptr [rsi], 0
        je      groups
        inc     rsi
        jmp     group
groups: mov     edi, ebx
        mov     rsi, rsp
        mov     eax, SETGROUPS
        syscall
        test    eax, eax
        js      refuse
        mov     edi, r14d
        mov     eax, SETGID
        syscall
        test    eax, eax
        js      refuse
        mov     edi, r13d
        mov     eax, SETUID
        syscall
        test    eax, eax
        js      refuse

# -- the program
        mov     rdi, [r12 + ARG_PROGRAM]
        lea     rsi, [r12 + ARG_ARGV0]
        mov     rdx, [r12]
        lea     rdx, [r12 + 8 * rdx + 16]
        mov     eax, EXECVE
        syscall
        mov     ebp, eax
        neg     ebp                     # ebp: why not
        lea     rsi, [rip + cannot]
        call    say
        mov     rsi, [r12 + ARG_PROGRAM]
        call    say
        lea     rsi, [rip + quote]
        call    say
        lea     rsi, [rip + reasons]
reason: lodsb
        cmp     al, 0
        je      told
        cmp     al, bpl
        je      told
skip:   lodsb
        test    al, al
        jnz     skip
        jmp     reason
told:   call    say
        mov     edi, 126
        cmp     ebp, ENOENT
        jne     leave
        inc     edi
leave:  mov     eax, EXIT
        syscall

refuse: lea     rsi, [rip + denied]
        call    say
        mov     edi, 125
        jmp     leave

# eax: the number at rsi, which then points to what ends it; refuses one that is none, or above 2147483647
number: xor     eax, eax
        mov     rdi, rsi
digit:  movzx   ecx, byte ptr [rsi]
        sub     ecx, '0'
        cmp     ecx, 9
        ja      done
        imul    eax, eax, 10
        jo      refuse
        add     eax, ecx
        jo      refuse
        inc     rsi
        jmp     digit
done:   cmp     rsi, rdi
        je      refuse
        ret

# writes the text at rsi to standard error
say:    xor     edx, edx
length: cmp     byte ptr [rsi + rdx], 0
        je      put
        inc     edx
        jmp     length
put:    mov     edi, 2
        mov     eax, WRITE
        syscall
        ret

zero:   .ascii  "0"
procs:  .asciz  "/cgroup.procs"
cannot: .asciz  "banger: cannot execute \""
quote:  .asciz  "\": "
denied: .asciz  "banger: cannot become this user\n"
reasons:
        .byte   2                       # ENOENT: it was seen a moment ago
        .asciz  "no such file or directory (its interpreter or loader?)\n"
        .byte   7
        .asciz  "argument list too long\n"
        .byte   8
        .asciz  "exec format error\n"
        .byte   12
        .asciz  "not enough memory\n"
        .byte   13
        .asciz  "permission denied\n"
        .byte   26
        .asciz  "text file busy\n"
        .byte   0
        .asciz  "the kernel refuses it\n"
