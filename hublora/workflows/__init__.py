"""The map: what hublora does, one file a public verb; `hublora` itself lists what is public.

make    caption     images ─ captioning model ─▶ captioned images
        train       dataset ref ─ data ─▶ training ─▶ adapter ─▶ card ─▶ run folder
        fit         config ─ measured steps ─▶ batch size and accumulation that fit into memory
        dry_run     config ─▶ what a training would do, cost and need
share   push        run folder ─ check ─▶ one commit ─ read back ─▶ user/name@commit
        verify      user/name ─ read anew, generate again ─▶ whether it holds what it says
        reproduce   user/name ─ its recipe ─ `train` ─▶ whether it is made again
use     load        adapter refs ─ resolve ─▶ adapters ─ compose ─▶ pipeline
        use         … other adapters for a pipeline that is there
        run         … ─ sample ─▶ images that say how they were made
        run_batch   … prompts × rows × columns ─▶ images and labelled sheets
        replay      image ─ its metadata ─▶ the image again
        convert     adapter ref ─ resolve ─▶ adapter ─▶ the same in another layout
mix     compose     adapter refs ─ pin ─▶ lockfile, card, gallery ─▶ user/mix@commit
        merge       adapter refs ─ merge ─▶ one adapter, card, gallery ─▶ user/merged@commit
        outdated    lockfile ─ ask the Hub ─▶ what changed;  `update` pins anew
look    inspect     adapter refs ─ headers and cards ─▶ facts
        preflight   … and a base's headers ─▶ what fits, and what does not add up
        list_runs   folder ─▶ the trainings in it, and how far each is
"""
