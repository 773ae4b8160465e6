# Sanitizers and coverage apply to everything built in the tree.
if(GYRE_SANITIZE)
  add_compile_options(-fsanitize=${GYRE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${GYRE_SANITIZE})
endif()
if(GYRE_COVERAGE)
  add_compile_options(--coverage)
  add_link_options(--coverage)
endif()
